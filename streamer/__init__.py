"""The process that shows the ring to browsers and players."""
