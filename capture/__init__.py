"""The process that owns the camera and is the only writer of frames."""
