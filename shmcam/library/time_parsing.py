"""Parses times as people write them: ISO 8601, or an age such as 90s, 15m, 2h, 3d. Pure."""

from __future__ import annotations

import re
from datetime import datetime

from shmcam.runtime.clock import to_iso

LARGEST = (1 << 63) - 1
"""The largest integer of a database; as nanoseconds the year 2262, beyond which a time is without limit, too."""
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")


def parse_instant_ns(text: str, now_utc_ns: int) -> int | None:
    """Returns a wall-clock time in ns since 1970; None for an empty text. Times without a zone are local.

    A time that a row cannot hold becomes the nearest one that it can. Raises: ValueError.
    """
    text = text.strip()
    if not text:
        return None
    if age := _AGE.fullmatch(text):
        return to_storable(now_utc_ns - round(float(age[1]) * UNITS_S[age[2]] * 1e9))
    try:
        return to_storable(round(datetime.fromisoformat(text).timestamp() * 1e9))
    except (ValueError, OverflowError):
        raise ValueError(
            f"time {text[:40]!r}: expected ISO 8601 such as 2026-11-21T08:15 or an age such as 90s, 2h, 3d"
        ) from None


def check_span(since_utc_ns: int | None, until_utc_ns: int | None) -> None:
    """Refuses a span that ends before it begins; None is open. Raises: ValueError."""
    if since_utc_ns is not None and until_utc_ns is not None and since_utc_ns > until_utc_ns:
        raise ValueError(f"since {to_iso(since_utc_ns)} is later than until {to_iso(until_utc_ns)}")


def to_storable(number: int) -> int:
    """Returns the nearest number that a row can hold."""
    return max(-LARGEST, min(number, LARGEST))
