"""The time at which a picture was taken: the camera's own where its clock is steady, else that of its arrival. Pure."""

from __future__ import annotations

from collections import deque

from capture.sources.pyav_stream import ArrivalClock

LATEST_NS = 1_000_000_000
"""A picture that came later than this by the camera's clock did not: the clock was set."""
DRIFT_NS = 20_000_000
"""Of WINDOW pictures one at least comes without delay; if even that one is later than this, the clocks drift apart."""
PROVEN, WINDOW = 8, 32
"""Pictures after which the camera's clock is believed, and over which it is judged."""
LEAST_STEP_NS = 1_000_000
"""Two pictures that arrive in one piece are this far apart, so that every file format can tell their order."""


class CameraClock:
    """Takes every picture, in order."""

    def __init__(self) -> None:
        self._distrust()
        self._last_own_s: float | None = None
        self._last_ns = 0

    def captured_ns(self, own_s: float | None, arrived_ns: int) -> int:
        """Returns the sensor-clock time of a picture. `own_s`: by the camera's clock; None: it tells none."""
        own_ns = self._own_ns(own_s, arrived_ns) if own_s is not None else 0
        self._last_own_s = own_s
        self._last_ns = max(own_ns or arrived_ns, self._last_ns + LEAST_STEP_NS)
        return self._last_ns

    def _own_ns(self, own_s: float, arrived_ns: int) -> int:
        """Returns the time by the camera's clock, 0 while that is not to be believed."""
        if self._last_own_s is not None and own_s <= self._last_own_s:
            self._distrust()  # it stands still, has too few digits, or was set back
        captured_ns = self._clock.captured_ns(round(own_s * 1e9), arrived_ns)
        self._delays_ns.append(arrived_ns - captured_ns)
        is_drifting = len(self._delays_ns) == WINDOW and min(self._delays_ns) > DRIFT_NS
        if self._delays_ns[-1] > LATEST_NS or is_drifting:
            self._distrust()
        return captured_ns if len(self._delays_ns) >= PROVEN else 0

    def _distrust(self) -> None:
        self._clock = ArrivalClock()
        self._delays_ns: deque[int] = deque(maxlen=WINDOW)
