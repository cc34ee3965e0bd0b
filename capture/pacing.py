"""Keeps time for sources that have no clock of their own: absolute deadlines, so that errors never add up.

Pure: the time is passed in. A sleep that ends late makes one frame late and no other; a stall of more than a frame
skips whole periods, as a sensor does, so that what comes after is on the same grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Pacer:
    """The grid start, start + period, start + 2 periods … in ns of the sensor clock."""

    due_ns: int = field(default=0, init=False)
    """When the next frame is due; 0 before the first `begin`."""
    skipped: int = field(default=0, init=False)
    """Periods that nobody was there for, in total."""
    _remainder: float = field(default=0.0, init=False)

    def begin(self, now_ns: int) -> None:
        """The first frame is due now."""
        self.due_ns, self._remainder = now_ns, 0.0

    def wait_ns(self, now_ns: int) -> int:
        """How long until the next frame is due; 0 or less: it is."""
        return self.due_ns - now_ns

    def advance(self, now_ns: int, period_ns: float) -> int:
        """Take the frame that is due and plan the next one. Returns: the timestamp of the frame taken.

        `period_ns` is the distance to the next frame; fractions are carried (29.97 fps stays 29.97 fps). If `now_ns`
        is past the frame's own period, whole periods are skipped and counted; the timestamp stays on the grid.
        """
        if period_ns <= 0:  # as fast as possible: there is no grid
            self.due_ns = now_ns
            return now_ns
        late = int((now_ns - self.due_ns) // period_ns)
        if late > 0:
            self.skipped += late
            self._step(late * period_ns)
        taken = self.due_ns
        self._step(period_ns)
        return taken

    def _step(self, by_ns: float) -> None:
        exact = by_ns + self._remainder
        whole = int(exact)
        self.due_ns, self._remainder = self.due_ns + whole, exact - whole
