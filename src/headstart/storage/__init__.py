"""Objects in a bucket, and folders that appear whole or not at all. Only this package imports fsspec."""
