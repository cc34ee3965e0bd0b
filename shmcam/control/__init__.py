"""CONTRACT 2: the messages; their dialects; hub, client and command line."""
