"""What heads predict: one class, one of ordered levels, a number, or whether an image is normal."""
