"""Convert caches to other file formats, import features, and merge caches."""

#: Value of ``format`` in converted files.
FORMAT = "headstart-features"

#: Increment it if old readers would misread new files.
FORMAT_VERSION = 1
