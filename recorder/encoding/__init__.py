"""Encoding: from the ring's frames to H.264."""
