"""Folders, manifests and buckets to sorted image paths with label, split and group."""
