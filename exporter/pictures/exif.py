"""Describes a picture in EXIF, for jpg, png and tiff, or in JSON, for a sidecar.

EXIF gets standard tags for other programs, and the whole description as JSON in UserComment, from which
`shmcam.library.sidecar` rebuilds the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
FLAG_NAMES = {int(flag): str(flag.name).lower() for flag in Flags}
MICROSECOND = 1_000_000
LONGEST_US = (1 << 32) - 1
"""The most that a TIFF fraction holds: 71 minutes."""
EXIF_VERSION = b"0232"
"""Time zones exist since 2.31."""


def describe(entry: Entry, meta: FrameMeta, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the whole description of a picture; the entry's own fields win, for the library."""
    frame = {key: value for key, value in meta._asdict().items() if value == value}  # noqa: PLR0124 - all but nan
    flags = [name for flag, name in FLAG_NAMES.items() if meta.flags & flag]
    return {**frame, "flags": flags, "captured": _format_captured(meta), **(more or {}), **entry.to_description()}


def tags_of(entry: Entry, meta: FrameMeta, description: Mapping[str, Any]) -> tuple[tiff.Tags, tiff.Tags]:
    """Returns the tags of the first directory and of the EXIF directory; `description` is that of `describe`."""
    captured = _format_captured(meta)
    when = tiff.as_ascii(f"{captured[:10].replace('-', ':')} {captured[11:19]}")
    first: dict[int, tiff.Value] = {
        Tag.MAKE: tiff.as_ascii("shmcam"),
        Tag.MODEL: tiff.as_ascii(entry.camera),
        Tag.SOFTWARE: tiff.as_ascii(_read_software()),
        Tag.DATE_TIME: when,
    }
    exif: dict[int, tiff.Value] = {
        Tag.EXIF_VERSION: tiff.as_undefined(EXIF_VERSION),
        Tag.DATE_TIME_ORIGINAL: when,
        Tag.SUB_SEC_TIME_ORIGINAL: tiff.as_ascii(captured[20:26]),
        Tag.OFFSET_TIME_ORIGINAL: tiff.as_ascii(captured[26:32]),
        Tag.IMAGE_UNIQUE_ID: tiff.as_ascii(f"{meta.captured_utc_ns & WORD:016x}{meta.frame_id & WORD:016x}"),
        Tag.USER_COMMENT: tiff.as_undefined(
            USER_COMMENT_ASCII + json.dumps(description, separators=(",", ":")).encode("ascii")
        ),
    }
    if meta.exposure_us > 0:
        exposure_us = min(meta.exposure_us, LONGEST_US)
        shared = gcd(exposure_us, MICROSECOND)
        exif[Tag.EXPOSURE_TIME] = tiff.as_rational(exposure_us // shared, MICROSECOND // shared)
    if meta.analogue_gain > 0:
        # ISO 100 is gain 1, as libcamera's own tools write it; two bytes end at 65,535.
        iso = min(65_535, round(100 * meta.analogue_gain * meta.digital_gain))
        exif[Tag.ISO_SPEED_RATINGS] = tiff.as_short(iso)
    return first, exif


@cache
def _read_software() -> str:
    return f"shmcam {version('shmcam')}"  # reads the disk: a millisecond


def _format_captured(meta: FrameMeta) -> str:
    """Returns local time with zone, `2026-11-21T08:15:00.123456+01:00`: of constant length, so that it can be cut."""
    return datetime.fromtimestamp(meta.captured_utc_ns / 1e9).astimezone().isoformat(timespec="microseconds")
