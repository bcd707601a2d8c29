"""Entries of the catalogue of heads."""
