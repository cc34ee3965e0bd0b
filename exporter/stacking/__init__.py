"""exporter/stacking."""
