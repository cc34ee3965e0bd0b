"""capture/sources/v4l2."""
