"""The kinds of cameras, each behind FrameSource (base.py)."""
