"""Publishes live H.264 to an RTSP server (MediaMTX, go2rtc …) without encoding it anew."""
