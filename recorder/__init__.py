"""The process that turns the ring into H.264 files that survive a power cut."""
