"""Which images there are: folders, tables and buckets → paths, labels, splits and groups."""
