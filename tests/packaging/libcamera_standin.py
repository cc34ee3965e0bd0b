"""Stands in for Raspberry Pi OS's libcamera: enough for the real Picamera2 to be imported, without cameras."""

from unittest.mock import MagicMock


class CameraManager:
    cameras = ()
    event_fd = 0

    @classmethod
    def singleton(cls):
        return cls()


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return MagicMock(name=name)
