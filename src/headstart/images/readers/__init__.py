"""Readers of image formats: the pixels of a file, or its stored samples."""
