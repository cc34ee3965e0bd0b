"""analyzer/keogram."""
