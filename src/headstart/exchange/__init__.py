"""Caches as other programs want them, several caches as one, and features that were made elsewhere."""

#: What a converted file says of itself.
FORMAT = "headstart-features"

#: Raise it when a reader of the old version would misread a new file.
FORMAT_VERSION = 1
