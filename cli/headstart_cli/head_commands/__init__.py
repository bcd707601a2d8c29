"""Commands that fit, compare and use heads."""
