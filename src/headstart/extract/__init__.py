"""From a folder of images to a cache, by shards."""
