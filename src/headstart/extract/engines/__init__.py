"""Engines that compute the shards of a run: this process, one process per device, or the workers of a Ray cluster."""
