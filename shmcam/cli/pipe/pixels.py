"""Turns a frame of a ring into the bytes of a raw format, showing the ring's own memory wherever that is possible."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from shm_ring.color import expansion_tables, luma, to_bgr
from shm_ring.formats import Geometry, geometry, planes
from shm_ring.frame import Frame
from shmcam.cli.pipe.pipe_output import Part
from shmcam.imaging.jpeg import to_jpeg

Plane = NDArray[np.uint8]

NEUTRAL = 128
"""Chroma without colour."""


class Pixels(Struct, frozen=True):
    """The pixels of one frame in the size that is wanted."""

    payload: Plane
    geometry: Geometry
    is_borrowed: bool
    """True if they lie in the ring."""


def scale(frame: Frame, size: tuple[int, int]) -> Pixels:
    """Returns a frame in this width and height; unchanged and uncopied if it has them."""
    form = frame.picture_geometry
    if (form.width, form.height) == size:
        return Pixels(frame.payload, form, is_borrowed=True)
    import cv2

    target = geometry(
        form.pixel_format,
        *size,
        color_space=form.color_space,
        color_range=form.color_range,
        sample_aspect=aspect_in(form, size),
    )
    payload = np.zeros(target.payload_bytes, np.uint8)
    how = cv2.INTER_AREA if size[0] < form.width else cv2.INTER_LINEAR
    for source, plane in zip(planes(frame.payload, form), planes(payload, target), strict=True):
        plane[...] = cv2.resize(source, (plane.shape[1], plane.shape[0]), interpolation=how).reshape(plane.shape)
    return Pixels(payload, target, is_borrowed=False)


def aspect_in(form: Geometry, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the shape of a pixel, so that a scaled picture is shown as wide as it was for its height."""
    ratio = Fraction(*form.sample_aspect) * Fraction(form.width * size[1], form.height * size[0])
    ratio = ratio.limit_denominator(4096)
    return max(1, ratio.numerator), max(1, ratio.denominator)


def to_yuv420p(pixels: Pixels) -> list[Plane]:
    """Returns Y, U and V, as views where possible. RGB becomes full-range BT.601, grey gets no colour."""
    views, form = planes(pixels.payload, pixels.geometry), pixels.geometry
    half = ((form.height + 1) // 2, (form.width + 1) // 2)
    match form.pixel_format:
        case "yuv420p":
            return list(views)
        case "nv12":
            return [views[0], views[1][..., 0], views[1][..., 1]]
        case "gray":
            return [views[0], *(np.full(half, NEUTRAL, np.uint8) for _ in range(2))]
    import cv2

    code = cv2.COLOR_BGR2YCrCb if form.pixel_format == "bgr24" else cv2.COLOR_RGB2YCrCb
    bright, red, blue = cv2.split(cv2.cvtColor(views[0], code))
    small = [cv2.resize(plane, (half[1], half[0]), interpolation=cv2.INTER_AREA) for plane in (blue, red)]
    return [np.asarray(plane, np.uint8) for plane in (bright, *small)]


def encode_yuv420p(pixels: Pixels) -> list[Part]:
    """Returns the planes Y, U, V one after the other, without padding."""
    return [np.ascontiguousarray(plane).data for plane in to_yuv420p(pixels)]


def encode_y4m(pixels: Pixels) -> list[Part]:
    """Returns a frame of YUV4MPEG2."""
    return [b"FRAME\n", *encode_yuv420p(pixels)]


def encode_bgr24(pixels: Pixels) -> list[Part]:
    """Returns rows of B, G, R."""
    if pixels.geometry.pixel_format == "bgr24":
        return [np.ascontiguousarray(planes(pixels.payload, pixels.geometry)[0]).data]
    return [to_bgr(pixels.payload, pixels.geometry).data]


def encode_gray(pixels: Pixels) -> list[Part]:
    """Returns full-range brightness."""
    bright = luma(pixels.payload, pixels.geometry)
    if pixels.geometry.color_range == "tv":
        bright = np.take(expansion_tables()[0], bright)
    return [np.ascontiguousarray(bright).data]


def jpeg_encoder(quality: int) -> Callable[[Pixels], list[Part]]:
    """Returns an encoder of JPEG files, one after the other."""
    return lambda pixels: [to_jpeg(pixels.payload, pixels.geometry, quality)]


def shows_ring(parts: list[Part], pixels: Pixels) -> bool:
    """Returns whether some of the parts are the ring's own memory."""
    return pixels.is_borrowed and any(
        np.may_share_memory(np.frombuffer(part, np.uint8), pixels.payload)
        for part in parts
        if isinstance(part, memoryview)
    )


def y4m_header(form: Geometry, fps: Fraction) -> bytes:
    """Returns the stream header of YUV4MPEG2 (yuv4mpeg(5)); ffmpeg's X tag names the range.

    C420jpeg: chroma in the middle of four pixels, as cameras that make JPEG and libcamera have it.
    """
    wide, high = form.sample_aspect
    is_rgb = form.pixel_format in ("bgr24", "rgb24")
    color_range = "FULL" if is_rgb or form.color_range == "pc" else "LIMITED"
    rate = f"F{fps.numerator}:{fps.denominator}"
    return (
        f"YUV4MPEG2 W{form.width} H{form.height} {rate} Ip A{wide}:{high} C420jpeg XCOLORRANGE={color_range}\n".encode()
    )
