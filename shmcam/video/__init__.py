"""H.264 and its files: Annex B, mp4 for live video, and videos that grow on disk and survive a crash."""
