"""analyzer/night."""
