"""Who computes the shards of a run: this process, one process for each device, or the workers of a Ray cluster."""
