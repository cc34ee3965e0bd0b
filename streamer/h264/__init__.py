"""Live H.264: the recorder's packets, muxed once, to every viewer of `/live.mp4` and `/ws/live`."""
