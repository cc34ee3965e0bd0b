"""Learns the light of a lamp that goes on with the night: an infrared lamp, a porch light, what `on_night` switches.

Such a lamp would make day of the night it was lit for, go out with it, and so for ever. It gives itself away: no sky
brightens to twice its light within seconds of our own switch to night. From then on its light is taken off what the
frames show, until it goes out or the day begins. No clock here but the frames' own.
"""

from __future__ import annotations

WATCH_S = 20.0
"""After the switch: an exposure at night needs six frames to show, a relay or a smart plug some seconds."""
JUMP = 2.0
"""Factor by which the scene brightens when the lamp goes on; dusk only darkens."""
LEAST_SHARE = 0.2
"""A scene counts beside the lamp from this share of its light on: the lamp's own drift is smaller."""
OUT = 0.6
"""With less than this share of its light left, the lamp is out."""
TOO_WHITE = 0.25
"""With more of the frame saturated its light is only a bound."""


class OwnLamp:
    """The lamp of one camera."""

    def __init__(self) -> None:
        self.rate = 0.0
        """Its relative light per second of exposure product; 0: no lamp is known."""
        self._dark_rate = 0.0
        self._began_ns: int | None = None

    def begin_night(self, captured_ns: int, rate: float) -> None:
        """Watches for a lamp: night has just begun, with this much light."""
        self.rate, self._dark_rate, self._began_ns = 0.0, rate, captured_ns

    def end_night(self) -> None:
        """Forgets the lamp: it goes out with the night, and is learned again in the next one."""
        self.rate, self._began_ns = 0.0, None

    def observe(self, captured_ns: int, rate: float, saturated: float) -> float:
        """Takes the light of a settled frame. Returns: the share of it that is the scene's and not the lamp's."""
        if self._began_ns is not None and saturated < TOO_WHITE:
            if rate >= JUMP * self._dark_rate > 0:
                self.rate, self._began_ns = rate - self._dark_rate, None
            elif captured_ns - self._began_ns > WATCH_S * 1e9:
                self._began_ns = None
        if rate < OUT * self.rate and saturated < TOO_WHITE:
            self.rate = 0.0
        if not self.rate or rate <= 0:
            return 1.0
        scene = rate - self.rate
        return (scene if scene >= LEAST_SHARE * self.rate else min(rate, self._dark_rate)) / rate
