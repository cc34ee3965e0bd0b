"""What the bytes of a frame mean: pixel formats, plane views, luma, conversion, JPEG."""
