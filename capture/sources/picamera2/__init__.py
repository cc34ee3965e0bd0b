"""Cameras of a Raspberry Pi through Picamera2 and libcamera."""
