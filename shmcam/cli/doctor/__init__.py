"""shmcam/cli/doctor."""
