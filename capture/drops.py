"""Counts frames the camera lost, from the gaps between sensor timestamps and from its own frame counter. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import fmean, median

LATE = 1.5
"""A gap of more than this many frame durations means frames are missing (RMS and design.md 7 use the same)."""

HISTORY = 63
"""Gaps from which the frame duration is estimated where the camera does not tell it."""

MIN_HISTORY = 5


@dataclass
class DropCounter:
    """Feed it every frame, in order."""

    total: int = field(default=0, init=False)
    """Frames lost so far."""
    _last_ns: int = field(default=0, init=False)
    _gaps: deque[int] = field(default_factory=lambda: deque(maxlen=HISTORY), init=False)

    def restart(self) -> None:
        """Forget the rhythm: the camera was opened again, paused or changed its mode; the gap now is no loss."""
        self._last_ns = 0
        self._gaps.clear()

    def frame(self, captured_ns: int, frame_duration_us: int = 0, lost_before: int = 0) -> int:
        """Take one frame. Returns: how many are missing before it.

        `frame_duration_us` is this frame's own duration (0 = unknown), so that a 2 s night exposure is no 59 drops.
        `lost_before` is what the device itself counted; it beats the clock where it says more.
        """
        gap, self._last_ns = (captured_ns - self._last_ns if self._last_ns else 0), captured_ns
        period = frame_duration_us * 1000 or self._usual_ns()
        if gap > 0:
            self._gaps.append(gap)
        missing = round(gap / period) - 1 if period and gap > LATE * period else 0
        missing = max(0, missing, lost_before)
        self.total += missing
        return missing

    def _usual_ns(self) -> float:
        """The mean of the gaps that hold one frame; 0 while there are too few. The median alone carries the jitter."""
        if len(self._gaps) < MIN_HISTORY:
            return 0.0
        limit = LATE * median(self._gaps)
        return fmean(gap for gap in self._gaps if gap < limit)
