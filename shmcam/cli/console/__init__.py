"""`shmcam console`: the full-screen view in a terminal."""
