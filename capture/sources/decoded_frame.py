"""Writes a decoded FFmpeg frame into a ring slot: planes copied as they are where they can be, else converted into it.

Webcams give 4:2:2; its chroma is averaged to 4:2:0 straight into the slot, so that everything after it (JPEG, H.264)
needs no conversion. A picture that was stored turned or mirrored (phones held upright) is turned back here, as players
do it; pixels that are not square stay as they are, and the geometry tells their shape.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.plane import VideoPlane
from msgspec import Struct
from numpy.typing import NDArray

from shm_ring import Flags
from shm_ring.formats import Geometry, geometry, planes, sample_aspect_of

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
LIMITED_RANGE = 1
"""AVCOL_RANGE_MPEG."""
COLOR_SPACES = {1: "bt709", 5: "smpte170m", 6: "smpte170m", 9: "bt2020nc", 10: "bt2020nc"}
"""AVCOL_SPC_BT709, _BT470BG, _SMPTE170M, _BT2020_NCL and _CL, which no common codec writes."""


class Orientation(Struct, frozen=True):
    """The way from the stored picture to the one that is shown: first `transposed`, then flipped."""

    transposed: bool = False
    flip_x: bool = False
    """Left and right change places."""
    flip_y: bool = False

    def turn(self, stored: Plane, out: Plane) -> None:
        """Fills `out` with the plane `stored` as it is shown; both (rows, columns) or (rows, columns, channels)."""
        if self.transposed and self.flip_x != self.flip_y:
            clockwise = cv2.ROTATE_90_CLOCKWISE if self.flip_x else cv2.ROTATE_90_COUNTERCLOCKWISE
            cv2.rotate(stored, clockwise, dst=out)
        elif self.transposed:
            cv2.transpose(cv2.flip(stored, -1) if self.flip_x else stored, dst=out)
        elif self.flip_x or self.flip_y:
            cv2.flip(stored, -1 if self.flip_x and self.flip_y else int(self.flip_x), dst=out)
        else:
            np.copyto(out, stored)


UPRIGHT = Orientation()


def orientation_of(matrix: bytes) -> Orientation:
    """Returns the orientation of a display matrix, to the nearest quarter turn.

    *Source*: libavutil/display.h; a stored (x, y) is shown at (a x + c y, b x + d y).
    """
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(transposed=False, flip_x=a < 0, flip_y=d < 0)
    return Orientation(transposed=True, flip_x=c < 0, flip_y=b < 0)


@dataclass(frozen=True, slots=True)
class PictureForm:
    """The form of decoded pictures, and the one they have in a slot."""

    stored: Geometry
    """As decoded, in a format of the ring."""
    orientation: Orientation
    shown: Geometry = field(init=False)
    """As written into the slot: upright."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", _turn_geometry(self.stored) if self.orientation.transposed else self.stored)


def _turn_geometry(stored: Geometry) -> Geometry:
    wide, high = stored.sample_aspect
    return geometry(
        *(stored.pixel_format, stored.height, stored.width),
        color_space=stored.color_space,
        color_range=stored.color_range,
        sample_aspect=(high, wide),
    )


def form_of(frame: av.VideoFrame, sample_aspect: Fraction | None = None) -> PictureForm:
    """Returns the form of this frame. `sample_aspect`: width by height of one pixel; None or 0: square."""
    # Not `frame.side_data`: that and the frame would hold each other until a garbage collection.
    matrix = SideDataContainer(frame).get(Type.DISPLAYMATRIX)  # type: ignore[call-arg] # PyAV's stubs
    return _make_form(
        *(frame.format.name, _ring_format_of(frame.format), frame.width, frame.height),
        color_space=int(frame.colorspace),
        color_range=int(frame.color_range),
        sample_aspect=sample_aspect or Fraction(1),
        matrix=None if matrix is None else bytes(matrix),
    )


def _ring_format_of(kind: av.VideoFormat) -> str:
    """Returns the format that pictures of this kind get in a slot."""
    if kind.name in RING_FORMATS:
        return RING_FORMATS[kind.name]
    if kind.is_rgb or kind.has_palette:
        return "bgr24"
    return "gray" if kind.name.startswith(("gray", "ya")) else "yuv420p"


@lru_cache(maxsize=64)  # asked for every frame; a stream has one or two
def _make_form(
    name: str,
    kind: str,
    width: int,
    height: int,
    *,
    color_space: int,
    color_range: int,
    sample_aspect: Fraction,
    matrix: bytes | None,
) -> PictureForm:
    full = name.startswith("yuvj") or color_range == FULL_RANGE or kind in ("bgr24", "rgb24")
    if kind == "gray":  # what does not say it, webcams and JPEG, is full
        full = color_range != LIMITED_RANGE
    guess = "bt709" if height >= BT709_FROM_HEIGHT and not full else "smpte170m"
    space = COLOR_SPACES.get(color_space, guess) if kind in ("yuv420p", "nv12") else "smpte170m"
    stored = geometry(
        *(kind, width, height),
        color_space=space,
        color_range="pc" if full else "tv",
        sample_aspect=sample_aspect_of(sample_aspect),
    )
    return PictureForm(stored, UPRIGHT if matrix is None else orientation_of(matrix))


def flags_of(frame: av.VideoFrame) -> int:
    """Returns the flags that the picture itself gives a frame."""
    return int(Flags.INTERLACED) if frame.interlaced_frame else 0


class FrameWriter:
    """Writes frames of one form into slots."""

    def __init__(self, form: PictureForm) -> None:
        self.form = form
        is_upright = form.orientation == UPRIGHT
        self._turned_from = None if is_upright else np.empty(form.stored.payload_bytes, np.uint8)

    def write(self, frame: av.VideoFrame, payload: Plane) -> None:
        """Fills `payload` with a frame of this form."""
        name, stored = frame.format.name, self.form.stored
        if RING_FORMATS.get(name) != stored.pixel_format:
            frame = frame.reformat(format="yuvj420p" if name.startswith("yuvj") else stored.pixel_format)
        target = payload if self._turned_from is None else self._turned_from
        WRITERS.get(frame.format.name, _copy)(frame, planes(target, stored))
        if self._turned_from is not None:
            for plane, out in zip(planes(target, stored), planes(payload, self.form.shown), strict=True):
                self.form.orientation.turn(plane, out)


def _rows_of(plane: VideoPlane, row_bytes: int, rows: int) -> Plane:
    """Returns one plane as (rows, row_bytes) without its padding; a view."""
    stride = plane.line_size
    held: Plane = np.frombuffer(memoryview(plane), np.uint8, stride * rows).reshape(rows, stride)
    return held if stride == row_bytes else held[:, :row_bytes]


def _copy(frame: av.VideoFrame, out: tuple[Plane, ...]) -> None:
    for held, plane in zip(frame.planes, out, strict=True):
        np.copyto(plane, _rows_of(held, plane.size // len(plane), len(plane)).reshape(plane.shape))


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
    """Averages areas. Two rows to one, as 4:2:2 needs it, by a sum: that is twelve times as fast, and the same."""
    if source.shape == (2 * target.shape[0], target.shape[1]):
        cv2.addWeighted(source[0::2], 0.5, source[1::2], 0.5, 0.0, dst=target)
        return
    cv2.resize(source, (target.shape[1], target.shape[0]), dst=target, interpolation=cv2.INTER_AREA)


WRITERS: dict[str, Callable[[av.VideoFrame, tuple[Plane, ...]], None]] = {
    **dict.fromkeys(("yuv422p", "yuvj422p", "yuv444p", "yuvj444p"), _average_chroma),
    "yuyv422": _unpack_yuyv,
    **dict.fromkeys(("bgr0", "bgra", "rgb0", "rgba"), _drop_fourth_byte),
}
