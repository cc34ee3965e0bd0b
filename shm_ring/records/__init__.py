"""shm_ring/records."""
