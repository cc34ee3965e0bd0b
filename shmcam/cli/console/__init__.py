"""Live views of the service: `shmcam console` in a terminal, `shmcam view` in a window on the desktop."""
