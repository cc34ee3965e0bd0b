"""streamer/h264."""
