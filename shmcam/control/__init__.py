"""CONTRACT 2: the control messages, their dialects, and the client of the hub."""
