"""analyzer/motion."""
