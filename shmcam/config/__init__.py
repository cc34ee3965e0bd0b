"""Reads config.toml: the declared tables, the values in use, and the errors in words for people."""
