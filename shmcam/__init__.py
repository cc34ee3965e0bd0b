"""shmcam."""
