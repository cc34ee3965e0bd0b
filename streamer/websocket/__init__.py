"""The WebSocket `/ws`: connections, their sessions, and the pictures and messages sent to them."""
