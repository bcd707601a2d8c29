"""Choosing settings and heads by cross-validation."""
