"""exporter/films."""
