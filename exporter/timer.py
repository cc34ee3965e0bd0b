"""When something that happens every so often is due: on an absolute grid, so that it does not drift. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Timer:
    """One thing that repeats."""

    _interval_s: float = 0.0
    _next_ns: int = 0
    missed: int = 0
    """Times that passed while nobody asked."""

    def due(self, now_ns: int, interval_s: float) -> bool:
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
