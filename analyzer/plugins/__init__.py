"""The user's score functions, each in a process of its own."""
