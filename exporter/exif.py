"""What a picture says about itself: EXIF for jpg, png and tiff, the same JSON beside the others.

Standard tags for other people's programs, and everything we know as JSON in UserComment, from which the library is
rebuilt (`library.sidecar`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from typing import Any

import piexif

from library.entry import Entry
from library.sidecar import USER_COMMENT_ASCII
from shm_ring import Flags, FrameMeta

Tags = dict[str, dict[int, Any]]

WORD = (1 << 64) - 1


def about(entry: Entry, meta: FrameMeta, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All that is known of a picture; the entry's description lies on top, for the library."""
    values = {field.name: getattr(meta, field.name) for field in fields(meta)}
    frame = {key: value for key, value in values.items() if value == value}  # noqa: PLR0124 - all but nan
    flags = [flag.name.lower() for flag in Flags if meta.flags & flag and flag.name]
    return {**frame, "flags": flags, "captured": _moment(meta).isoformat(), **(more or {}), **entry.description()}


def tags(entry: Entry, meta: FrameMeta, known: Mapping[str, Any]) -> Tags:
    """EXIF tags by piexif's sections."""
    moment = _moment(meta)
    when = moment.strftime("%Y:%m:%d %H:%M:%S")
    offset = moment.strftime("%z")
    zeroth = {
        piexif.ImageIFD.Make: "shmcam",
        piexif.ImageIFD.Model: entry.camera,
        piexif.ImageIFD.Software: _software(),
        piexif.ImageIFD.DateTime: when,
    }
    exif: dict[int, Any] = {
        piexif.ExifIFD.DateTimeOriginal: when,
        piexif.ExifIFD.SubSecTimeOriginal: f"{moment.microsecond:06d}",
        piexif.ExifIFD.OffsetTimeOriginal: f"{offset[:3]}:{offset[3:5]}",
        piexif.ExifIFD.ImageUniqueID: f"{meta.captured_utc_ns & WORD:016x}{meta.frame_id & WORD:016x}",
        piexif.ExifIFD.UserComment: USER_COMMENT_ASCII + json.dumps(known, separators=(",", ":")).encode("ascii"),
    }
    if meta.exposure_us > 0:
        exposure = Fraction(meta.exposure_us, 1_000_000).limit_denominator(1_000_000)
        exif[piexif.ExifIFD.ExposureTime] = (exposure.numerator, exposure.denominator)
    if meta.analogue_gain > 0:
        # ISO 100 is gain 1: what libcamera's own tools write; two bytes end at 65,535.
        exif[piexif.ExifIFD.ISOSpeedRatings] = min(65_535, round(100 * meta.analogue_gain * meta.digital_gain))
    return {"0th": zeroth, "Exif": exif}


@cache
def _software() -> str:
    return f"shmcam {version('shmcam')}"  # read from disk: a millisecond


def _moment(meta: FrameMeta) -> datetime:
    return datetime.fromtimestamp(meta.captured_utc_ns / 1e9).astimezone()
