"""streamer/pictures."""
