"""recorder/encoding."""
