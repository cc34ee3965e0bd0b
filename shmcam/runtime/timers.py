"""How long to wait before trying again: 1, 2, 4 … 30 s, for cameras, peers and disks that are away.

When something that happens every so often is due: on an absolute grid, so that it does not drift. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Doubling delays with an upper limit; `reset()` after a success."""

    first_s: float = 1.0
    limit_s: float = 30.0
    _next_s: float = field(default=0.0, init=False)

    def next_delay_s(self) -> float:
        """The wait before the next try; each call doubles the one after."""
        delay = self._next_s or self.first_s
        self._next_s = min(delay * 2, self.limit_s)
        return delay

    def reset(self) -> None:
        """Start again from the first delay."""
        self._next_s = 0.0


@dataclass
class Interval:
    """One thing that repeats."""

    _interval_s: float = 0.0
    _next_ns: int = 0
    missed: int = 0
    """Times that passed while nobody asked."""

    def take_due(self, now_ns: int, interval_s: float) -> bool:
        """Whether it is time; the first time one interval after it was switched on. An interval of 0 is never."""
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
