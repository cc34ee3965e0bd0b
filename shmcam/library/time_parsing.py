"""Times as people write them: ISO 8601, or an age such as 90s, 15m, 2h, 3d. Pure."""

from __future__ import annotations

import re
from datetime import datetime

LARGEST = (1 << 63) - 1
"""Of a database's integers: as nanoseconds the year 2262; what lies beyond is without limit, too."""
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")


def parse_instant_ns(text: str, now_utc_ns: int) -> int | None:
    """Wall clock in ns since 1970; None for empty text. Times without zone are local. Raises: ValueError.

    Times that a row cannot have become the nearest one it can.
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


def to_storable(number: int) -> int:
    """The nearest number that a row can hold."""
    return max(-LARGEST, min(number, LARGEST))
