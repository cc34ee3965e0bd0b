"""exporter/continuous."""
