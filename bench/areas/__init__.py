"""bench/areas."""
