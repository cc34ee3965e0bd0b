"""Makes pictures of frames: JPEG, PNG, TIFF, EXIF, stacks, burnt-in text and numbers. Pure; imports only shm_ring."""
