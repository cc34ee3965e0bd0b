"""The two clocks: the sensor's (CLOCK_BOOTTIME, never steps) and the wall's (may jump at any time).

How often something happens, by the times it happened at.
"""

from __future__ import annotations

import time
from collections import deque
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


WINDOW = 31
"""Intervals looked at: about a second of video, and the length shared/imaging.md 5 uses for its rolling figures."""


class RateMeter:
    """Events a second over the last WINDOW intervals."""

    def __init__(self) -> None:
        self._at_ns: deque[int] = deque(maxlen=WINDOW + 1)

    def add(self, at_ns: int) -> float:
        """Count one event. Returns: the rate now; 0 while there is only one event or the clock went back."""
        if self._at_ns and at_ns <= self._at_ns[-1]:
            self._at_ns.clear()
        self._at_ns.append(at_ns)
        return self.per_s(at_ns)

    def per_s(self, now_ns: int) -> float:
        """The rate as seen now: it falls when events stop coming."""
        if len(self._at_ns) < 2:
            return 0.0
        intervals = len(self._at_ns) - 1
        waited_ns = max(now_ns, self._at_ns[-1]) - self._at_ns[0]
        period_ns = (self._at_ns[-1] - self._at_ns[0]) / intervals
        late = now_ns - self._at_ns[-1] > 2 * period_ns
        return intervals * 1e9 / (waited_ns if late else max(1, self._at_ns[-1] - self._at_ns[0]))
