"""Picamera2's stream formats and metadata, and what becomes of them in a ring slot. Pure.

Formats the ring knows are copied as they lie, padding of the rows included: one memcpy. Those with a fourth byte per
pixel are converted straight into the slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from capture.sources.base import CameraError, ShotMeta
from shm_ring.formats import Geometry, geometry, planes

Bytes = NDArray[np.uint8]

PREFERRED = ("YUV420", "NV12", "RGB888", "BGR888", "XRGB8888", "XBGR8888")
"""Best first. libcamera names RGB from the highest byte: its RGB888 lies in memory as B, G, R (FFmpeg's bgr24)."""

RING_FORMATS = {
    "YUV420": "yuv420p",
    "NV12": "nv12",
    "RGB888": "bgr24",
    "BGR888": "rgb24",
    "XRGB8888": "bgr24",
    "XBGR8888": "rgb24",
}
FOUR_BYTES = ("XRGB8888", "XBGR8888")


class Layout(Struct, frozen=True):
    """The layout of one stream in the camera's buffer and in the slot."""

    name: str
    """Picamera2's format."""
    geometry: Geometry
    """Of the slot."""
    stride: int
    """Bytes from row to row in the camera's buffer."""
    source_bytes: int
    """Bytes of the camera's buffer that hold picture; a frame with fewer is short."""

    def fill(self, source: Bytes, payload: Bytes) -> None:
        """Copies or converts one frame, both 1-D. Raises: CameraError where the buffer is too short."""
        if source.size < self.source_bytes:
            raise CameraError(f"short frame: {source.size} of {self.source_bytes} bytes of {self.name}")
        if self.name not in FOUR_BYTES:
            np.copyto(payload[: self.source_bytes], source[: self.source_bytes])
            return
        rows = source[: self.source_bytes].reshape(self.geometry.height, self.stride)
        pixels = rows[:, : 4 * self.geometry.width].reshape(self.geometry.height, self.geometry.width, 4)
        cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR, dst=planes(payload, self.geometry)[0])


def candidates(codec: str) -> tuple[str, ...]:
    """Returns the Picamera2 formats to try for camera.codec, best first.

    Raises: CameraError for one the ring cannot hold.
    """
    if codec == "auto":
        return PREFERRED
    if codec.upper() not in RING_FORMATS:
        raise CameraError(
            f"camera.codec {codec!r}: with Picamera2 it must be auto or {', '.join(RING_FORMATS).lower()}"
        )
    return (codec.upper(),)


def colours(space: Any) -> tuple[str, str]:
    """FFmpeg's names of the matrix and range of a libcamera ColorSpace (None, as webcams have: what JPEG uses)."""
    if space is None:
        return "smpte170m", "pc"
    matrix = "bt709" if space.ycbcrEncoding.name == "Rec709" else "smpte170m"
    return matrix, "tv" if space.range.name == "Limited" else "pc"


def layout(stream: Mapping[str, Any], space: Any) -> Layout:
    """The layout of a configured stream: Picamera2's `camera_configuration()["main"]`, and its colour space.

    Raises: CameraError for a format the ring cannot hold.
    """
    name, (width, height), stride = str(stream["format"]), stream["size"], int(stream["stride"])
    if name not in RING_FORMATS:
        raise CameraError(f"the camera delivers {name}; known are {', '.join(RING_FORMATS)}")
    matrix, extent = colours(space)
    strides = {"YUV420": (stride, stride // 2, stride // 2), "NV12": (stride, stride)}.get(name, (stride,))
    in_slot = geometry(
        RING_FORMATS[name],
        width,
        height,
        strides=None if name in FOUR_BYTES else strides,
        color_space=matrix,
        color_range=extent,
    )
    return Layout(name, in_slot, stride, stride * height if name in FOUR_BYTES else in_slot.payload_bytes)


def shot(metadata: Mapping[str, Any]) -> ShotMeta:
    """Returns libcamera's metadata of a frame in our units; missing values stay unknown."""
    return ShotMeta(
        captured_ns=int(metadata.get("SensorTimestamp", 0)),
        captured_utc_ns=int(metadata.get("FrameWallClock", 0)),
        exposure_us=int(metadata.get("ExposureTime", 0)),
        analogue_gain=float(metadata.get("AnalogueGain", 0.0)),
        digital_gain=float(metadata.get("DigitalGain", 1.0)),
        lux=float(metadata.get("Lux", float("nan"))),
        colour_temperature_k=int(metadata.get("ColourTemperature", 0)),
        frame_duration_us=int(metadata.get("FrameDuration", 0)),
    )
