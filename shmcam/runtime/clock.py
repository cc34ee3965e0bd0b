"""Reads the two clocks, the sensor's (CLOCK_BOOTTIME, never steps) and the wall's (may jump), and measures rates."""

from __future__ import annotations

import math
import time
from collections import deque
from datetime import UTC, datetime


def now_ns() -> int:
    """Returns the sensor clock: libcamera stamps frames with it (control_ids_core.yaml, SensorTimestamp)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def utc_offset_ns() -> int:
    """Returns wall clock minus sensor clock; it is read between two sensor readings, so the error is about 0.1 µs."""
    before = now_ns()
    wall = time.time_ns()
    return wall - (before + now_ns()) // 2


def to_utc_ns(captured_ns: int) -> int:
    """Returns the wall clock (ns since 1970, UTC) of a sensor timestamp, by the present offset."""
    return captured_ns + utc_offset_ns()


def to_stamp(utc_ns: int) -> str:
    """Returns local time as in file names, `YYYYmmdd_HHMMSS`."""
    return datetime.fromtimestamp(utc_ns / 1e9).strftime("%Y%m%d_%H%M%S")


def to_iso(utc_ns: int) -> str:
    """Returns ISO 8601 in UTC with milliseconds, as in logs and JSON replies."""
    return datetime.fromtimestamp(utc_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


INTERVALS = 31
"""The intervals that count: about a second of video."""


class RateMeter:
    """The rate of the newest events, by the times at which they happened."""

    def __init__(self, intervals: int = INTERVALS, *, window_s: float = math.inf) -> None:
        """`intervals`: the number of intervals that count at most."""
        self.window_s = window_s
        """The age at which an interval no longer counts, unless it is the only one."""
        self._at_ns: deque[int] = deque(maxlen=intervals + 1)

    def add(self, at_ns: int) -> None:
        """Counts one event; a clock that went back begins anew."""
        if self._at_ns and at_ns <= self._at_ns[-1]:
            self._at_ns.clear()
        self._at_ns.append(at_ns)
        while len(self._at_ns) > 2 and at_ns - self._at_ns[0] > self.window_s * 1e9:
            self._at_ns.popleft()

    def clear(self) -> None:
        """Forgets all events, so that the pause that follows is not an interval."""
        self._at_ns.clear()

    @property
    def newest_ns(self) -> int | None:
        """The time of the newest event."""
        return self._at_ns[-1] if self._at_ns else None

    @property
    def span_ns(self) -> int:
        """The time from the oldest event that counts to the newest."""
        return self._at_ns[-1] - self._at_ns[0] if self._at_ns else 0

    @property
    def period_ns(self) -> int:
        """The mean interval; 0 while there are fewer than two events."""
        return (self._at_ns[-1] - self._at_ns[0]) // (len(self._at_ns) - 1) if len(self._at_ns) > 1 else 0

    @property
    def per_s(self) -> float:
        """Events a second; 0 while there are fewer than two."""
        return (len(self._at_ns) - 1) * 1e9 / (self._at_ns[-1] - self._at_ns[0]) if len(self._at_ns) > 1 else 0.0
