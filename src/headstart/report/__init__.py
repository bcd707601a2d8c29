"""Results as text tables, plots and HTML pages."""
