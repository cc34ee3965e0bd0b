"""Puts frames of a device with a clock of its own on the sensor clock, without the jitter of the way here. Pure.

A frame can only be late, never early: of all distances between the two clocks the smallest is the truest (moonfire-nvr
and RMS do the same). The estimate may creep by 500 ppm, so that clocks that drift apart are followed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SLEW = 500e-6
"""Two crystals differ by less (moonfire-nvr, design/time.md)."""

RESET_NS = 2_000_000_000
"""Further off than this is no jitter: the device was set anew, or its stream started over."""


@dataclass
class ArrivalClock:
    """Feed it every frame's own timestamp and its arrival."""

    _offset_ns: float | None = field(default=None, init=False)
    _last_ns: int = field(default=0, init=False)

    def captured_ns(self, own_ns: int, arrived_ns: int) -> int:
        """The sensor-clock time of a frame that the device stamped `own_ns` and that arrived at `arrived_ns`."""
        distance = arrived_ns - own_ns
        if self._offset_ns is None or abs(distance - self._offset_ns) > RESET_NS:
            self._offset_ns = distance
        else:
            crept = self._offset_ns + SLEW * max(0, arrived_ns - self._last_ns)
            self._offset_ns = min(crept, distance)
        self._last_ns = arrived_ns
        return round(own_ns + self._offset_ns)
