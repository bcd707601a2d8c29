"""Commands that make, check and change caches."""
