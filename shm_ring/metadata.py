"""The metadata of a frame; metadata and geometry to bytes of a slot header and back."""

from __future__ import annotations

import math
from enum import IntFlag
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from shm_ring import formats, layout
from shm_ring.errors import FrameDamaged
from shm_ring.formats import Geometry


class Flags(IntFlag):
    """The bits of a frame's `flags`."""

    NIGHT = 1
    SETTLING = 2
    KEY = 4
    MASKED = 8
    INTERLACED = 16


# One for every frame, in each process: a frozen dataclass takes four times as long to make.
class FrameMeta(NamedTuple):
    """The metadata of one frame."""

    frame_id: int
    """Counts on over generations and restarts; what files, headers and CSV rows name. 0 or more."""
    captured_ns: int
    """Sensor clock (CLOCK_BOOTTIME), nanoseconds."""
    captured_utc_ns: int
    """Wall clock of the same instant, nanoseconds since 1970."""
    exposure_us: int = 0
    """Microseconds; 0 = unknown."""
    analogue_gain: float = 0.0
    """Factor; 0 = unknown."""
    digital_gain: float = 1.0
    """Factor."""
    lux: float = math.nan
    """Camera's estimate of scene illumination; nan = unknown."""
    colour_temperature_k: int = 0
    """Kelvin; 0 = unknown."""
    frame_duration_us: int = 0
    """Microseconds from one frame to the next; 0 = unknown."""
    flags: int = 0
    """Of Flags."""
    dropped_before: int = 0
    """Frames the camera lost just before this one."""
    total_dropped: int = 0
    """Frames lost since the source was opened."""


FrameFields = tuple[int, int, int, int, int, int, float, float, float, int, int, int, int, int, int, int]
"""FRAME_STRUCT unpacked; the order is that of layout.FRAME_FIELDS."""


def meta_of(fields: FrameFields) -> FrameMeta:
    """Turns unpacked slot fields into metadata."""
    (_, frame_id, captured, utc, _, _, again, dgain, lux, total, exposure, duration, kelvin, flags, dropped, _) = fields
    return FrameMeta(frame_id, captured, utc, exposure, again, dgain, lux, kelvin, duration, flags, dropped, total)


def pack_geometry(geometry: Geometry | None) -> bytes:
    """Returns the bytes a slot header holds for a geometry."""
    record = np.zeros((), layout.GEOMETRY)
    if geometry is not None:
        count = len(geometry.strides)
        for field in ("pixel_format", "width", "height", "color_space", "color_range"):
            record[field] = getattr(geometry, field)
        record["strides"][:count] = geometry.strides
        record["offsets"][:count] = geometry.offsets
        record["sample_aspect"] = geometry.sample_aspect
    return record.tobytes()


@lru_cache(maxsize=64)  # a ring has one or two geometries; hostile ones may be many
def unpack_geometry(packed: bytes, used_bytes: int) -> Geometry | None:
    """Reads a geometry back and checks that its planes lie within the payload.

    Raises: FrameDamaged.
    """
    record = np.frombuffer(packed, layout.GEOMETRY)[0]
    pixel_format = record["pixel_format"].decode("ascii", "replace")
    if not pixel_format:
        return None
    width, height = int(record["width"]), int(record["height"])
    try:
        count = len(formats.plane_shapes(pixel_format, width, height))
        strides = tuple(int(stride) for stride in record["strides"][:count])
        names = {field: record[field].decode("ascii", "replace") for field in ("color_space", "color_range")}
        wide, high = (int(side) for side in record["sample_aspect"])
        aspect = (wide, high) if wide and high else formats.SQUARE
        formats.geometry(pixel_format, width, height, strides=strides, **names)  # refuses what cannot be
    except ValueError as error:
        raise FrameDamaged(f"slot header: {error}") from None
    offsets = tuple(int(offset) for offset in record["offsets"][:count])
    geometry = Geometry(pixel_format, width, height, strides, offsets, **names, sample_aspect=aspect)
    if geometry.payload_bytes > used_bytes:
        raise FrameDamaged(f"slot header: planes of {geometry.payload_bytes} bytes in a payload of {used_bytes}")
    return geometry
