"""What a picture says about itself: EXIF for jpg, png and tiff, the same JSON beside the others.

Standard tags for other people's programs, and everything we know as JSON in UserComment, from which the library is
rebuilt (`shmcam.library.sidecar`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from functools import cache
from importlib.metadata import version
from math import gcd
from typing import Any

from shm_ring import Flags, FrameMeta
from shmcam.imaging import tiff
from shmcam.imaging.tiff import Tag
from shmcam.library.entry import Entry
from shmcam.library.sidecar import USER_COMMENT_ASCII

WORD = (1 << 64) - 1
FRAME_FIELDS = tuple(field.name for field in fields(FrameMeta))
FLAG_NAMES = {int(flag): str(flag.name).lower() for flag in Flags}
MICROSECOND = 1_000_000
LONGEST_US = (1 << 32) - 1
"""What a TIFF fraction holds: 71 minutes."""
EXIF_VERSION = b"0232"
"""Since 2.31 there are zones of time."""


def about(entry: Entry, meta: FrameMeta, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All that is known of a picture; the entry's description lies on top, for the library."""
    values = {name: getattr(meta, name) for name in FRAME_FIELDS}
    frame = {key: value for key, value in values.items() if value == value}  # noqa: PLR0124 - all but nan
    flags = [name for flag, name in FLAG_NAMES.items() if meta.flags & flag]
    return {**frame, "flags": flags, "captured": _captured(meta), **(more or {}), **entry.description()}


def tags(entry: Entry, meta: FrameMeta, known: Mapping[str, Any]) -> tuple[tiff.Tags, tiff.Tags]:
    """The tags of the first directory and of the EXIF one; `known` as `about` tells."""
    captured = _captured(meta)
    when = tiff.as_ascii(f"{captured[:10].replace('-', ':')} {captured[11:19]}")
    first: dict[int, tiff.Value] = {
        Tag.MAKE: tiff.as_ascii("shmcam"),
        Tag.MODEL: tiff.as_ascii(entry.camera),
        Tag.SOFTWARE: tiff.as_ascii(_software()),
        Tag.DATE_TIME: when,
    }
    exif: dict[int, tiff.Value] = {
        Tag.EXIF_VERSION: tiff.as_undefined(EXIF_VERSION),
        Tag.DATE_TIME_ORIGINAL: when,
        Tag.SUB_SEC_TIME_ORIGINAL: tiff.as_ascii(captured[20:26]),
        Tag.OFFSET_TIME_ORIGINAL: tiff.as_ascii(captured[26:32]),
        Tag.IMAGE_UNIQUE_ID: tiff.as_ascii(f"{meta.captured_utc_ns & WORD:016x}{meta.frame_id & WORD:016x}"),
        Tag.USER_COMMENT: tiff.as_undefined(
            USER_COMMENT_ASCII + json.dumps(known, separators=(",", ":")).encode("ascii")
        ),
    }
    if meta.exposure_us > 0:
        exposure_us = min(meta.exposure_us, LONGEST_US)
        shared = gcd(exposure_us, MICROSECOND)
        exif[Tag.EXPOSURE_TIME] = tiff.as_rational(exposure_us // shared, MICROSECOND // shared)
    if meta.analogue_gain > 0:
        # ISO 100 is gain 1: what libcamera's own tools write; two bytes end at 65,535.
        iso = min(65_535, round(100 * meta.analogue_gain * meta.digital_gain))
        exif[Tag.ISO_SPEED_RATINGS] = tiff.as_short(iso)
    return first, exif


@cache
def _software() -> str:
    return f"shmcam {version('shmcam')}"  # read from disk: a millisecond


def _captured(meta: FrameMeta) -> str:
    """Local time with zone, `2026-11-21T08:15:00.123456+01:00`: always as long, so that parts are cut out of it."""
    return datetime.fromtimestamp(meta.captured_utc_ns / 1e9).astimezone().isoformat(timespec="microseconds")
