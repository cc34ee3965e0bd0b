"""streamer/monitoring."""
