"""Heads that predict a number."""
