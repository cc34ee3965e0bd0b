"""Reads the two clocks, the sensor's (CLOCK_BOOTTIME, never steps) and the wall's (may jump), and measures rates.

The wall clock's own error is the NTP client's estimate.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache

from msgspec import Struct


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


@lru_cache(256)  # a page of the library names each time twice
def to_iso(utc_ns: int) -> str:
    """Returns ISO 8601 in UTC with milliseconds, as in logs and JSON replies."""
    return datetime.fromtimestamp(utc_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


STA_UNSYNC, TIME_ERROR = 0x40, 5
"""timex.h: the clock is not synchronized."""


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2) on 64-bit Linux, as far as it is read; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 168),
    )


class ClockError(Struct, frozen=True):
    """The error of the wall clock, as the NTP client (chrony, systemd-timesyncd, ntpd) told the kernel."""

    synchronized: bool
    """False: no NTP client has set the clock for long; the errors mean nothing then."""
    estimated_us: int
    """The likely error; 0 with clients that do not estimate it."""
    max_us: int
    """The largest error; it grows by 500 µs a second until the client speaks again."""


def read_clock_error() -> ClockError | None:
    """Asks the kernel for the error of the wall clock (adjtimex(2), reading only); None where it does not tell."""
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        return None
    is_set = state != TIME_ERROR and not timex.status & STA_UNSYNC
    return ClockError(is_set, int(timex.esterror), int(timex.maxerror))


def read_clock_error_us() -> int | None:
    """Returns the largest error of the wall clock; None while no NTP client has set it, or where it is not told."""
    error = read_clock_error()
    return error.max_us if error is not None and error.synchronized else None


INTERVALS = 31
"""The intervals that count: about a second of video."""

RATE_MAX = 10_000
"""Events a second, which no camera reaches: numbers that grow faster have jumped."""


class RateMeter:
    """The rate of the newest events, by the times at which they happened."""

    def __init__(self, intervals: int = INTERVALS, *, window_s: float = math.inf) -> None:
        """`intervals`: the number of intervals that count at most."""
        self.window_s = window_s
        """The age at which an interval no longer counts, unless it is the only one."""
        self._seen: deque[tuple[int, int]] = deque(maxlen=intervals + 1)
        """The time and the number of each event."""

    def add(self, at_ns: int, number: int | None = None) -> None:
        """Counts one event; a clock that went back begins anew.

        `number`: its running number, where not every event is seen; one that jumped or went back begins anew, too.
        """
        seen = self._seen
        last_ns, last_number = seen[-1] if seen else (at_ns, 0)
        if number is None:
            number = last_number + 1
        if number <= last_number or (number - last_number) * 1_000_000_000 > RATE_MAX * (at_ns - last_ns):
            seen.clear()
        seen.append((at_ns, number))
        while len(seen) > 2 and at_ns - seen[0][0] > self.window_s * 1e9:
            seen.popleft()

    def clear(self) -> None:
        """Forgets all events, so that the pause that follows is not an interval."""
        self._seen.clear()

    @property
    def newest_ns(self) -> int | None:
        """The time of the newest event."""
        return self._seen[-1][0] if self._seen else None

    @property
    def span_ns(self) -> int:
        """The time from the oldest event that counts to the newest."""
        return self._seen[-1][0] - self._seen[0][0] if self._seen else 0

    @property
    def period_ns(self) -> int:
        """The mean interval; 0 while there are fewer than two events."""
        return self.span_ns // self._count if self._count else 0

    @property
    def per_s(self) -> float:
        """Events a second; 0 while there are fewer than two."""
        return self._count * 1e9 / self.span_ns if self._count else 0.0

    @property
    def _count(self) -> int:
        """Events from the oldest that counts to the newest, without the first."""
        return self._seen[-1][1] - self._seen[0][1] if self._seen else 0
