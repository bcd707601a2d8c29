"""Heads compared on the same folds."""
