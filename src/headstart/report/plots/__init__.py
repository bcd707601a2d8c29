"""Plots of a comparison of heads, as SVG that takes its colours from the page around it."""
