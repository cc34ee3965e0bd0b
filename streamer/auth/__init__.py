"""streamer/auth."""
