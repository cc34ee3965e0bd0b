"""shmcam/hub."""
