"""exporter/commands."""
