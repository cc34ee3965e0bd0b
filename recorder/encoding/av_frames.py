"""Frames of the ring as FFmpeg's frames: without a copy where the layout allows it, with exactly one otherwise.

`VideoFrame.from_numpy_buffer` wraps memory, but derives every plane from the first row's stride: planes must follow
each other, chroma rows must be half a luma row, and it computes the height as rows // 6 * 4, so it is only right for
heights that are multiples of 4 (imaging.md 3.4). Every other layout goes through one staging frame that is used again
and again: libx264 and v4l2m2m both copy what they are given before `encode` returns. So do frames of full range, which
are squeezed into limited range on the way unless the user wants them as they are: QuickTime refuses the other.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from msgspec import Struct
from numpy.typing import NDArray

from shm_ring.formats import SQUARE, Geometry, planes

Plane = NDArray[np.uint8]

NEUTRAL_CHROMA = 128

LUMA_SQUEEZE = 219 / 255, 16.0
CHROMA_SQUEEZE = 224 / 255, 128 - 128 * 224 / 255
"""Factor and offset that make limited range of full range; nothing gets negative, and no value lies between two."""


class EncoderInput(Struct, frozen=True):
    """The form of an encoder's frames: everything that makes two frames fit into one H.264 stream."""

    pixel_format: str
    """yuv420p or nv12: what libx264 and v4l2m2m both take."""
    width: int
    """Pixels, even."""
    height: int
    """Pixels, even."""
    color_space: str
    color_range: str
    sample_aspect: tuple[int, int] = SQUARE
    """Width and height of one pixel."""


def encoder_input_of(geometry: Geometry, *, full_range: bool = True) -> EncoderInput:
    """Returns the form of frames of this geometry: 4:2:0 of even size (an odd last row or column is repeated once).

    `full_range`: frames that have it keep it; False: they become limited.
    """
    width, height = geometry.width + geometry.width % 2, geometry.height + geometry.height % 2
    rgb = geometry.pixel_format in ("bgr24", "rgb24")
    pixel_format = "nv12" if geometry.pixel_format == "nv12" else "yuv420p"
    if rgb:  # FFmpeg's own conversion makes BT.601 limited range
        return EncoderInput(pixel_format, width, height, "smpte170m", "tv", geometry.sample_aspect)
    color_range = geometry.color_range if full_range else "tv"
    return EncoderInput(pixel_format, width, height, geometry.color_space, color_range, geometry.sample_aspect)


def can_wrap(geometry: Geometry) -> bool:
    """Tells whether `from_numpy_buffer` sees the planes where they are."""
    width, height, stride = geometry.width, geometry.height, geometry.strides[0]
    if geometry.pixel_format not in ("yuv420p", "nv12") or width % 2 or height % 4 or stride % 2:
        return False
    luma = stride * height
    if geometry.pixel_format == "nv12":
        return geometry.strides[1] == stride and geometry.offsets == (0, luma)
    return geometry.strides[1:] == (stride // 2, stride // 2) and geometry.offsets == (0, luma, luma + luma // 4)


class Wrapper:
    """Turns payloads of one geometry into frames."""

    def __init__(self, geometry: Geometry, *, editable: bool = False, full_range: bool = True) -> None:
        """`editable`: frames are copies whose luma may be drawn on. `full_range`: see `encoder_input_of`."""
        self.geometry = geometry
        self.encoder_input = encoder_input_of(geometry, full_range=full_range)
        self._is_squeezed = geometry.color_range != self.encoder_input.color_range
        self.copies = editable or self._is_squeezed or not can_wrap(geometry)
        """True if each frame costs a copy."""
        self._staging: av.VideoFrame | None = None

    def wrap(self, payload: Plane) -> av.VideoFrame:
        """Returns the frame in `payload` (1-D uint8), valid until the next call or the end of the payload's borrow."""
        if not self.copies:
            rows = self.geometry.height * 3 // 2
            array = payload[: rows * self.geometry.strides[0]].reshape(rows, self.geometry.strides[0])
            return av.VideoFrame.from_numpy_buffer(array, self.encoder_input.pixel_format, width=self.geometry.width)
        if self.geometry.pixel_format in ("bgr24", "rgb24"):
            return self._convert(payload)
        return self._copy(payload)

    def luma_of(self, frame: av.VideoFrame) -> Plane:
        """Returns the writable luma plane of an editable frame, without padding."""
        return view_plane(frame, 0)[: self.encoder_input.height, : self.encoder_input.width]

    def _copy(self, payload: Plane) -> av.VideoFrame:
        if self._staging is None:
            self._staging = self._make_neutral_frame()
        frame, sources = self._staging, planes(payload, self.geometry)
        for index, source in enumerate(sources):
            flat = source.reshape(source.shape[0], -1)
            target = view_plane(frame, index)
            rows, columns = flat.shape
            if self._is_squeezed:
                _squeeze(flat, CHROMA_SQUEEZE if index else LUMA_SQUEEZE, target[:rows, :columns])
            else:
                target[:rows, :columns] = flat
            if index == 0:
                _repeat_edges(target, rows, columns, self.encoder_input)
        frame.pict_type = 0
        return frame

    def _convert(self, payload: Plane) -> av.VideoFrame:
        (pixels,) = planes(payload, self.geometry)
        width, height = self.encoder_input.width, self.encoder_input.height
        if (width, height) != (self.geometry.width, self.geometry.height):
            spare = (height - pixels.shape[0], width - pixels.shape[1])
            pixels = np.pad(pixels, ((0, spare[0]), (0, spare[1]), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_numpy_buffer(pixels, self.geometry.pixel_format)
        return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.smpte170m, dst_color_range=ColorRange.MPEG)

    def _make_neutral_frame(self) -> av.VideoFrame:
        frame = av.VideoFrame(self.encoder_input.width, self.encoder_input.height, self.encoder_input.pixel_format)
        for index in range(len(frame.planes)):
            view_plane(frame, index)[:] = NEUTRAL_CHROMA
        return frame


def _squeeze(source: Plane, line: tuple[float, float], target: Plane) -> None:
    """Writes full range as limited range, in one pass that takes half the time of a look-up."""
    import cv2  # 16 MB, only for cameras of full range

    cv2.setNumThreads(1)  # a plane is too little work to share, and the cores belong to the encoder
    cv2.convertScaleAbs(source, dst=target, alpha=line[0], beta=line[1])


def view_plane(frame: av.VideoFrame, index: int) -> Plane:
    """Returns the rows of one plane of FFmpeg's memory, padding included."""
    plane = frame.planes[index]
    rows: Plane = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows


def _repeat_edges(target: Plane, rows: int, columns: int, encoder_input: EncoderInput) -> None:
    if encoder_input.width > columns:
        target[:rows, columns] = target[:rows, columns - 1]
    if encoder_input.height > rows:
        target[rows, : encoder_input.width] = target[rows - 1, : encoder_input.width]
