"""shm_ring/tools."""
