"""Oddities of a data set, found in its cache."""

from headstart.quality.quality_report import inspect_quality as inspect_quality
