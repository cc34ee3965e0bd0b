"""Writes a decoded FFmpeg frame into a ring slot: planes copied as they are where they can be, else converted into it.

Webcams give 4:2:2; its chroma is averaged to 4:2:0 straight into the slot, so that everything after it (JPEG, H.264)
needs no conversion.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import av
import cv2
import numpy as np
from av.video.plane import VideoPlane
from numpy.typing import NDArray

from capture.sources.base import CameraError
from shm_ring.formats import Geometry, geometry, planes

Plane = NDArray[np.uint8]

RING_FORMATS = {
    "yuv420p": "yuv420p", "yuvj420p": "yuv420p", "yuv422p": "yuv420p", "yuvj422p": "yuv420p",
    "yuv444p": "yuv420p", "yuvj444p": "yuv420p", "yuyv422": "yuv420p", "nv12": "nv12", "gray": "gray", "grayj": "gray",
    "bgr24": "bgr24", "rgb24": "rgb24", "bgr0": "bgr24", "bgra": "bgr24", "rgb0": "rgb24", "rgba": "rgb24",
}  # fmt: skip
"""Formats that go into a slot without FFmpeg's scaler in between; all others become yuv420p there first."""

BT709_FROM_HEIGHT = 720
"""Players assume BT.709 for HD where a file does not say its matrix."""

FULL_RANGE = 2
"""AVCOL_RANGE_JPEG."""
COLOR_SPACES = {1: "bt709", 5: "smpte170m", 6: "smpte170m"}
"""AVCOL_SPC_BT709, _BT470BG and _SMPTE170M."""


def geometry_of(frame: av.VideoFrame) -> Geometry:
    """Returns the geometry of this frame in a slot."""
    name = frame.format.name
    kind = RING_FORMATS.get(name, "yuv420p")
    full = name.startswith("yuvj") or int(frame.color_range) == FULL_RANGE or kind in ("bgr24", "rgb24", "gray")
    guess = "bt709" if frame.height >= BT709_FROM_HEIGHT and not full else "smpte170m"
    space = COLOR_SPACES.get(int(frame.colorspace), guess) if kind in ("yuv420p", "nv12") else "smpte170m"
    return geometry(kind, frame.width, frame.height, color_space=space, color_range="pc" if full else "tv")


def write_frame(frame: av.VideoFrame, payload: Plane, target: Geometry) -> None:
    """Fills `payload` with the frame. Raises: CameraError when it is of another size than `target`."""
    if (frame.width, frame.height) != (target.width, target.height):
        raise CameraError(
            f"frame of {frame.width}x{frame.height} from a camera opened at {target.width}x{target.height}"
        )
    if RING_FORMATS.get(frame.format.name) != target.pixel_format:
        frame = frame.reformat(format=target.pixel_format)
    out = planes(payload, target)
    WRITERS.get(frame.format.name, _copy)(frame, out)


def _rows_of(plane: VideoPlane, row_bytes: int, rows: int) -> Plane:
    """Returns one plane as (rows, row_bytes) without its padding; a view."""
    raw: Plane = np.frombuffer(memoryview(plane), np.uint8)
    stride = plane.line_size
    return raw[: stride * rows].reshape(rows, stride)[:, :row_bytes]


def _copy(frame: av.VideoFrame, out: tuple[Plane, ...]) -> None:
    for held, plane in zip(frame.planes, out, strict=True):
        rows = _rows_of(held, math.prod(plane.shape[1:]), plane.shape[0])
        np.copyto(plane, rows if plane.ndim == 2 else rows.reshape(plane.shape))


def _average_chroma(frame: av.VideoFrame, out: tuple[Plane, ...]) -> None:
    """4:2:2 or 4:4:4 planes: luma as it is, chroma averaged."""
    bright, *chroma = frame.planes
    np.copyto(out[0], _rows_of(bright, frame.width, frame.height))
    for plane, target in zip(chroma, out[1:], strict=True):
        _average(_rows_of(plane, plane.width, plane.height), target)


def _unpack_yuyv(frame: av.VideoFrame, out: tuple[Plane, ...]) -> None:
    """Packed Y U Y V, what most webcams give uncompressed."""
    pairs = (frame.width + 1) // 2
    packed = _rows_of(frame.planes[0], pairs * 4, frame.height)
    cv2.extractChannel(packed.reshape(frame.height, pairs * 2, 2)[:, : frame.width], 0, dst=out[0])
    quads = packed.reshape(frame.height, pairs, 4)
    for index, channel in ((1, 1), (2, 3)):
        _average(np.asarray(cv2.extractChannel(quads, channel), np.uint8), out[index])


def _drop_fourth_byte(frame: av.VideoFrame, out: tuple[Plane, ...]) -> None:
    """XRGB8888 and relatives: three of four bytes."""
    packed = _rows_of(frame.planes[0], frame.width * 4, frame.height).reshape(frame.height, frame.width, 4)
    cv2.cvtColor(packed, cv2.COLOR_BGRA2BGR, dst=out[0])


def _average(source: Plane, target: Plane) -> None:
    cv2.resize(source, (target.shape[1], target.shape[0]), dst=target, interpolation=cv2.INTER_AREA)


WRITERS: dict[str, Callable[[av.VideoFrame, tuple[Plane, ...]], None]] = {
    **dict.fromkeys(("yuv422p", "yuvj422p", "yuv444p", "yuvj444p"), _average_chroma),
    "yuyv422": _unpack_yuyv,
    **dict.fromkeys(("bgr0", "bgra", "rgb0", "rgba"), _drop_fourth_byte),
}
