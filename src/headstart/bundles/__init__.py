"""Saved heads."""
