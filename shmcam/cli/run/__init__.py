"""`shmcam run`: the start of the whole service, in the foreground or in the background of another word."""
