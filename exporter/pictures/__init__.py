"""exporter/pictures."""
