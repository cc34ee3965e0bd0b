"""Turns the configuration of the programs before this one into a config.toml."""
