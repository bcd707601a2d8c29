"""What heads predict: one class, one of ordered levels, or a number per image."""
