"""Which format, size and rate to ask of a webcam. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from capture.address import Address
from capture.source import CameraError, Request
from capture.v4l2 import Device, Mode

FFMPEG_NAMES = {
    "YU12": "yuv420p", "NV12": "nv12", "YUYV": "yuyv422", "MJPG": "mjpeg", "RGB3": "rgb24", "BGR3": "bgr24",
    "BX24": "0rgb", "XR24": "bgr0", "GREY": "gray",
}  # fmt: skip
"""V4L2's four letters to FFmpeg's input_format."""

PREFERENCE = ("YU12", "NV12", "YUYV", "MJPG", "BGR3", "RGB3", "XR24", "BX24", "GREY")
"""Least work first: 4:2:0 is copied, 4:2:2 averaged, JPEG decoded."""

CODECS = {
    "yuv420": "YU12",
    "nv12": "NV12",
    "yuyv": "YUYV",
    "mjpeg": "MJPG",
    "rgb888": "BGR3",
    "bgr888": "RGB3",
    "xrgb8888": "XR24",
}
"""camera.codec (libcamera's names) to V4L2's."""

ENOUGH = 0.95
"""A mode is fast enough at this share of the rate asked for: 29.97 will do for 30."""


def choose(modes: Sequence[Mode], width: int, height: int, framerate: float, codec: str = "auto") -> Mode | None:
    """The mode nearest to what is asked: the size counts first, then the rate, then how little work the format is.

    Returns: None when the device offers no format we can read, or not the one that `codec` insists on.
    """
    wanted = CODECS.get(codec)
    usable = [mode for mode in modes if mode.fourcc in PREFERENCE and (codec == "auto" or mode.fourcc == wanted)]

    def distance(mode: Mode) -> tuple[float, float, int]:
        too_slow = mode.rate and framerate and mode.rate < framerate * ENOUGH
        missing = framerate - mode.rate if too_slow else 0.0
        faster = -mode.rate if not framerate else 0.0
        return abs(mode.width - width) + abs(mode.height - height), missing or faster, PREFERENCE.index(mode.fourcc)

    return min(usable, key=distance, default=None)


def options(mode: Mode, framerate: float) -> dict[str, str]:
    """FFmpeg's options that ask a V4L2 device for this mode."""
    rate = min(framerate, mode.rate) if framerate and mode.rate else framerate or mode.rate
    asked = {"video_size": f"{mode.width}x{mode.height}", "input_format": FFMPEG_NAMES[mode.fourcc]}
    return {**asked, "framerate": f"{rate:g}"} if rate else asked


def address(device: Device, request: Request) -> Address:
    """How FFmpeg is to open the device for this request. Raises: CameraError when it has no format we can read."""
    mode = choose(device.modes, request.width, request.height, request.framerate, request.codec)
    if mode is None:
        has = ", ".join(map(str, device.modes)) or "none"
        raise CameraError(f"{device.path} ({device.card}): no format for codec = {request.codec}; it offers {has}")
    return Address(device.path, f"{device.path} ({device.card}) {mode}", "v4l2", options(mode, request.framerate))
