"""Unlabelled images to clusters, and labelled clusters to class folders."""
