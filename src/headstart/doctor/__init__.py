"""What this machine has for an extraction, how fast it is, and advice."""
