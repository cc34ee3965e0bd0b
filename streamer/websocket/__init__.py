"""streamer/websocket."""
