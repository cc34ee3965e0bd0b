"""streamer/api."""
