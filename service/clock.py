"""The two clocks: the sensor's (CLOCK_BOOTTIME, never steps) and the wall's (may jump at any time)."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ns() -> int:
    """The sensor clock: libcamera stamps frames with CLOCK_BOOTTIME (control_ids_core.yaml, SensorTimestamp)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def utc_offset_ns() -> int:
    """Wall clock minus sensor clock, now; the wall reading is sandwiched, so the error is about 0.1 µs."""
    before = now_ns()
    wall = time.time_ns()
    return wall - (before + now_ns()) // 2


def to_utc_ns(captured_ns: int) -> int:
    """Wall clock (ns since 1970, UTC) of a sensor timestamp, by today's offset."""
    return captured_ns + utc_offset_ns()


def stamp(utc_ns: int) -> str:
    """Local time as used in file names, `YYYYmmdd_HHMMSS`."""
    return datetime.fromtimestamp(utc_ns / 1e9).strftime("%Y%m%d_%H%M%S")


def iso(utc_ns: int) -> str:
    """ISO 8601 in UTC with milliseconds, as in logs and JSON replies."""
    return datetime.fromtimestamp(utc_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
