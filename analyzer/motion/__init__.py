"""Motion in the frame, and the events made of it."""
