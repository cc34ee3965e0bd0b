"""shmcam/video."""
