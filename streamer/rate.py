"""How often something happens, by the times it happened at."""

from __future__ import annotations

from collections import deque

WINDOW = 31
"""Intervals looked at: about a second of video, and the length shared/imaging.md 5 uses for its rolling figures."""


class Rate:
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
