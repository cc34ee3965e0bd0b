"""The hub: the process that owns the control socket and the live settings."""
