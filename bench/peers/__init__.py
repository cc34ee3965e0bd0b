"""bench/peers."""
