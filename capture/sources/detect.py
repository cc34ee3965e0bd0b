"""Finds every camera of this machine: Picamera2's, V4L2's, with their sizes and the processes that hold them.

Nothing heavy is imported until it is asked for; the command line and the capture process both call it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from capture.sources.base import CameraError
from capture.sources.picamera2 import device as libcamera_device
from capture.sources.v4l2 import device as v4l2_device
from shmcam.runtime.procfs import name_holders


class DetectedCamera(Struct, frozen=True):
    """One camera."""

    source: str
    """camera.source that uses it."""
    index: int
    """camera.index, or its place among the V4L2 devices."""
    model: str
    device_id: str
    """libcamera's id, or the device node."""
    modes: tuple[str, ...]
    """Sizes, formats and highest rates; empty: not told before it is opened."""
    busy: str
    """The process that holds it; empty: free as far as can be seen."""

    def line(self) -> str:
        """Returns one line of text."""
        modes = f" modes: {', '.join(self.modes[:8])}" if self.modes else ""
        return (
            f"{self.source} {self.index}: {self.model} ({self.device_id}){modes}{' ' + self.busy if self.busy else ''}"
        )


def detect_cameras() -> list[DetectedCamera]:
    """Returns everything that can be a camera, real ones first; the synthetic one is always there."""
    return [
        *detect_picamera2(),
        *detect_v4l2(),
        DetectedCamera("synthetic", 0, "simulated sensor", "synthetic", (), ""),
    ]


def rows_of(found: list[DetectedCamera]) -> list[dict[str, Any]]:
    """Returns the cameras as JSON."""
    return [{**asdict(one), "modes": list(one.modes)} for one in found]


def detect_picamera2() -> list[DetectedCamera]:
    """Returns the cameras of libcamera; none where Picamera2 is not installed."""
    reason, known = _list_libcamera()
    if reason:
        return []
    others = libcamera_device.name_lock_holders()
    busy = f"in use by {others}" if others else ""
    return [
        DetectedCamera("picamera2", one.index, one.model, one.id, tuple(f"{w}x{h}" for w, h in one.sizes), busy)
        for one in known
    ]


def detect_v4l2() -> list[DetectedCamera]:
    """Returns webcams and capture cards."""
    return [
        DetectedCamera("v4l2", i, one.card, one.path, tuple(map(str, one.modes)), name_holders([one.path]))
        for i, one in enumerate(v4l2_device.find_devices())
    ]


def list_usable() -> list[dict[str, Any]]:
    """Returns camera.source and camera.index of every camera that can be used, in the order in which `auto` tries."""
    sensors = [camera.index for camera in detect_picamera2() if not picamera2_problem(camera.index)]
    webcams = [camera.index for camera in detect_v4l2()]
    return [{"source": "picamera2", "index": index} for index in sensors] + [
        {"source": "v4l2", "index": index} for index in webcams
    ]


def picamera2_problem(index: int) -> str:
    """Returns the reason why Picamera2 cannot serve camera `index`; empty: it can."""
    reason, known = _list_libcamera()
    if not reason and index >= len(known):
        reason = f"libcamera sees {len(known)} cameras, number {index} is asked for"
    if not reason and known[index].usb:
        reason = f"{known[index].model} is a webcam, which V4L2 serves better"
    return reason


def v4l2_problem(index: int) -> str:
    """Returns the reason why no V4L2 device can serve as camera `index`; empty: one can."""
    known = v4l2_device.find_devices()
    return "" if index < len(known) else f"{len(known)} V4L2 capture devices, number {index} is asked for"


def _list_libcamera() -> tuple[str, tuple[libcamera_device.ConnectedCamera, ...]]:
    """Returns the reason why libcamera cannot be used (empty: it can), and its cameras."""
    try:
        return "", libcamera_device.list_cameras()
    except CameraError as error:
        return f"no Picamera2 ({error})", ()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(list_usable()))
