"""Heads that predict a number, or one of ordered levels."""
