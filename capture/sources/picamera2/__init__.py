"""capture/sources/picamera2."""
