"""Checks of caches that are untrusted or may be damaged."""
