"""bench/night."""
