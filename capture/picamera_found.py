"""Which cameras libcamera sees, without opening one.

Picamera2 and libcamera are imported inside functions: most machines have neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from capture.deadline import deadline
from capture.source import CameraError

LOOKING_S = 20.0
"""Most that starting libcamera may take; a cold Pi Zero needs some seconds."""


@dataclass(frozen=True, slots=True)
class Found:
    """A camera libcamera knows, opened or not."""

    index: int
    """What Picamera2(index) opens."""
    model: str
    id: str
    """libcamera's id: the place it is connected to."""
    usb: bool
    """A webcam; source = "v4l2" serves those better."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Sensor modes, largest first; empty where libcamera does not tell."""


def found(*, afresh: bool = False) -> tuple[Found, ...]:
    """Every camera of libcamera, in Picamera2's order; no camera is opened.

    `afresh` starts libcamera anew, which is how a camera that appeared later is seen; without effect while this process
    has one open. Raises: CameraError where Picamera2 or libcamera does not work.
    """
    try:
        from picamera2 import Picamera2

        with deadline(LOOKING_S, "looking for cameras"):
            if afresh and not Picamera2._cm.cameras:
                Picamera2._cm.reset()
            by_id = {camera.id: camera for camera in Picamera2._cm.cms.cameras}
            listed = Picamera2.global_camera_info()
    except (ImportError, RuntimeError, OSError) as error:
        raise CameraError(f"Picamera2 does not work here: {error}") from error
    return tuple(
        Found(index, str(info["Model"]), info["Id"], "/usb" in info["Id"], _sizes(by_id[info["Id"]]))
        for index, info in enumerate(listed)
    )


def _sizes(camera: Any) -> tuple[tuple[int, int], ...]:
    from libcamera import StreamRole

    try:
        formats = camera.generate_configuration([StreamRole.Raw]).at(0).formats
    except (RuntimeError, AttributeError):  # a webcam has no raw stream
        return ()
    sizes = {(size.width, size.height) for pixel in formats.pixel_formats for size in formats.sizes(pixel)}
    return tuple(sorted(sizes, reverse=True))


def choose(index: int, cameras: tuple[Found, ...], place: str | None) -> Found | None:
    """The camera that number `index` means: the one at `place` if it was seen before. Pure."""
    if place is not None:
        return next((camera for camera in cameras if camera.id == place), None)
    return cameras[index] if index < len(cameras) else None
