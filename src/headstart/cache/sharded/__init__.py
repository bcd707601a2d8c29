"""A cache as a folder of immutable shards with a manifest."""
