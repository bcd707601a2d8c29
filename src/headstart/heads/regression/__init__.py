"""Heads that predict a number, one of ordered levels, or whether an image is normal."""
