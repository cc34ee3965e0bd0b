"""analyzer/plugins."""
