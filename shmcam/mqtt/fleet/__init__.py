"""`shmcam fleet`: all devices at one broker, from the command line."""
