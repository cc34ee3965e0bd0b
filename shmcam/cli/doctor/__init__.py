"""`shmcam doctor` and its checks."""
