"""Checks of caches that come from elsewhere, or may be damaged."""
