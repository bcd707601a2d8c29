"""Caches as other programs want them, several caches as one, and features that were made elsewhere."""
