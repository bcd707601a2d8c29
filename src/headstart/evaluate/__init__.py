"""Splits, folds, metrics, intervals and leak detection; checks of a data set, and the report on them."""
