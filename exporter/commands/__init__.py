"""Answers the commands of the exporter, one module per subject."""
