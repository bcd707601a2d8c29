"""Splits and scores."""
