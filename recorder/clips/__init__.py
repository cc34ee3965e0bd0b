"""recorder/clips."""
