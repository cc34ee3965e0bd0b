"""Finds every camera this machine can see: Picamera2's, V4L2's, with their sizes and who holds them.

Nothing heavy is imported until it is asked for; the command line and the capture process both call it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from capture.sources.base import CameraError
from capture.sources.picamera2 import device as libcamera_device
from capture.sources.v4l2 import device as v4l2_device
from shmcam.runtime.procfs import held_by


@dataclass(frozen=True, slots=True)
class DetectedCamera:
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
    """Who holds it; empty: free as far as can be seen."""

    def line(self) -> str:
        """One line for people."""
        modes = f" modes: {', '.join(self.modes[:8])}" if self.modes else ""
        return (
            f"{self.source} {self.index}: {self.model} ({self.device_id}){modes}{' ' + self.busy if self.busy else ''}"
        )


def cameras() -> list[DetectedCamera]:
    """Everything that can be a camera, real ones first; the synthetic one is always there."""
    return [
        *picamera2_cameras(),
        *v4l2_cameras(),
        DetectedCamera("synthetic", 0, "simulated sensor", "synthetic", (), ""),
    ]


def rows(found: list[DetectedCamera]) -> list[dict[str, Any]]:
    """The cameras as JSON."""
    return [{**asdict(one), "modes": list(one.modes)} for one in found]


def picamera2_cameras() -> list[DetectedCamera]:
    """What libcamera sees; empty where Picamera2 is not installed."""
    reason, known = _libcamera()
    if reason:
        return []
    others = libcamera_device.name_holders()
    busy = f"in use by {others}" if others else ""
    return [
        DetectedCamera("picamera2", one.index, one.model, one.id, tuple(f"{w}x{h}" for w, h in one.sizes), busy)
        for one in known
    ]


def v4l2_cameras() -> list[DetectedCamera]:
    """Webcams and capture cards."""
    return [
        DetectedCamera("v4l2", i, one.card, one.path, tuple(map(str, one.modes)), held_by([one.path]))
        for i, one in enumerate(v4l2_device.devices())
    ]


def why_no_picamera2(index: int) -> str:
    """Why Picamera2 cannot serve camera `index`; empty: it can."""
    reason, known = _libcamera()
    if not reason and index >= len(known):
        reason = f"libcamera sees {len(known)} cameras, number {index} is asked for"
    if not reason and known[index].usb:
        reason = f"{known[index].model} is a webcam, which V4L2 serves better"
    return reason


def why_no_v4l2(index: int) -> str:
    """Why no V4L2 device can serve as camera `index`; empty: one can."""
    known = v4l2_device.devices()
    return "" if index < len(known) else f"{len(known)} V4L2 capture devices, number {index} is asked for"


def _libcamera() -> tuple[str, tuple[libcamera_device.ConnectedCamera, ...]]:
    """Why libcamera cannot be asked (empty: it can), and what it sees."""
    try:
        return "", libcamera_device.found()
    except CameraError as error:
        return f"no Picamera2 ({error})", ()
