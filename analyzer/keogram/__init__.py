"""The keogram: one column of pixels per minute of a day."""
