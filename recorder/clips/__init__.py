"""Clips: the files that encoded frames are recorded into, from the first frame to their row in the library."""
