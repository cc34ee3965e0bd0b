"""Pictures over HTTP: MJPEG streams (multipart/x-mixed-replace) and addresses that answer with one JPEG at a time."""
