"""What is odd about a data set, found in what extraction saw anyway."""

from headstart.quality.quality_report import inspect_quality as inspect_quality
