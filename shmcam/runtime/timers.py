"""Computes the wait before the next try (1, 2, 4 … 30 s), when something is due, and hours of the day. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Delays that double up to a limit, for cameras, peers and disks that are away; `reset()` after a success."""

    first_s: float = 1.0
    limit_s: float = 30.0
    _next_s: float = field(default=0.0, init=False)

    def next_delay_s(self) -> float:
        """Returns the wait before the next try; each call doubles the next one."""
        delay = self._next_s or self.first_s
        self._next_s = min(delay * 2, self.limit_s)
        return delay

    def reset(self) -> None:
        """Starts again with the first delay."""
        self._next_s = 0.0


@dataclass
class Interval:
    """Something that repeats on an absolute grid, so that it does not drift."""

    _interval_s: float = 0.0
    _next_ns: int = 0
    missed: int = 0
    """Times that passed between two calls."""

    @property
    def is_on(self) -> bool:
        """True while it repeats."""
        return self._interval_s > 0

    @property
    def next_ns(self) -> int:
        """When it is due next, while it is on."""
        return self._next_ns

    def take_due(self, now_ns: int, interval_s: float) -> bool:
        """Returns True once an interval has passed, first one interval after it was switched on; never if it is 0."""
        if interval_s <= 0:
            self._interval_s = 0.0
            return False
        step_ns = round(interval_s * 1e9)
        if interval_s != self._interval_s:
            self._interval_s, self._next_ns = interval_s, now_ns + step_ns
        if now_ns < self._next_ns:
            return False
        late = (now_ns - self._next_ns) // step_ns
        self.missed += late
        self._next_ns += (late + 1) * step_ns
        return True


HOURS = r"(?:[01]\d|2[0-3]):[0-5]\d-(?:(?:[01]\d|2[0-3]):[0-5]\d|24:00)"
"""The pattern of a span of the day, such as 22:00-06:00."""
DAY_MINUTES = 24 * 60


def is_within_hours(hours: str, minute: int) -> bool:
    """Tells whether a minute of the day (0..1439) lies in a span of HOURS; the empty span is the whole day.

    The end does not belong to it. A span that ends before it begins goes over midnight.
    """
    if not hours:
        return True
    begin, end = (int(text[:2]) * 60 + int(text[3:]) for text in hours.split("-"))
    return (minute - begin) % DAY_MINUTES < ((end - begin) % DAY_MINUTES or DAY_MINUTES)
