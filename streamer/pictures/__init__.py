"""Live pictures: each variant is encoded once and handed to all of its viewers."""
