"""streamer/http."""
