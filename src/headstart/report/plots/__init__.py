"""Plots of a comparison of heads, as SVG that uses the colours of the page."""
