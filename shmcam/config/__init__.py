"""shmcam/config."""
