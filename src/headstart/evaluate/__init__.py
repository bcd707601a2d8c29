"""Splits, folds, metrics, intervals and leak detection."""
