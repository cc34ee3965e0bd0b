"""Decides between day and night: a table of states, and the rules by which a change of state becomes a switch.

Rules of this file: no camera, no clock, no messages. Brightness and the sensor's time come in, decisions go out, so
that whole simulated days run through exactly the code that runs outdoors (docs/night.md). Brightness is on the
video-mode scale and independent of the camera's own exposure (`analyzer.night.brightness`), which is why a switch
cannot undo itself: the first service decided on the plain mean, and its own long exposure made it day again.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Literal

from msgspec import Struct

from analyzer.night.brightness import Brightness
from analyzer.settings import NightSettings


class Reading(Enum):
    """The evidence of one frame about the scene."""

    DARK = "dark"
    """Certainly below the dark threshold."""
    BETWEEN = "between"
    """Between the thresholds, or too badly exposed to tell."""
    BRIGHT = "bright"
    """Certainly above the bright threshold."""


class State(Enum):
    """Day or night, settled or with evidence for the other gathering."""

    DAY = "day"
    DARKENING = "darkening"
    NIGHT = "night"
    BRIGHTENING = "brightening"


NEXT: dict[tuple[State, Reading], State] = {
    (State.DAY, Reading.DARK): State.DARKENING,
    (State.DAY, Reading.BETWEEN): State.DAY,
    (State.DAY, Reading.BRIGHT): State.DAY,
    (State.DARKENING, Reading.DARK): State.DARKENING,  # becomes NIGHT once the evidence suffices
    (State.DARKENING, Reading.BETWEEN): State.DAY,
    (State.DARKENING, Reading.BRIGHT): State.DAY,
    (State.NIGHT, Reading.BRIGHT): State.BRIGHTENING,
    (State.NIGHT, Reading.BETWEEN): State.NIGHT,
    (State.NIGHT, Reading.DARK): State.NIGHT,
    (State.BRIGHTENING, Reading.BRIGHT): State.BRIGHTENING,  # becomes DAY once the evidence suffices
    (State.BRIGHTENING, Reading.BETWEEN): State.NIGHT,
    (State.BRIGHTENING, Reading.DARK): State.NIGHT,
}
"""The state after a reading. One frame of doubt and the evidence starts again from nothing."""

TARGET = {State.DARKENING: State.NIGHT, State.BRIGHTENING: State.DAY}
"""The state that follows when the evidence of a gathering state suffices: these are the two switches."""

Override = Literal["auto", "on", "off"]

MIN_GAP_S = 10.0
"""Frames further apart than this (and than the dwell, and three exposures) are no longer consecutive."""


class Lock(Struct, frozen=True):
    """A time without switches."""

    seconds: float
    """Until the next switch is allowed; 0: it is."""
    key: str = ""
    """The setting that it follows from."""


class Decision(Struct, frozen=True):
    """A switch between day and night."""

    night: bool
    captured_ns: int
    """Sensor time of the frame that decided."""
    reason: str
    """The numbers behind it, for log and events."""


def reading_of(low: float, high: float, settings: NightSettings) -> Reading:
    """Returns the evidence of a brightness between `low` and `high`."""
    if high < settings.dark_threshold:
        return Reading.DARK
    return Reading.BRIGHT if low > settings.bright_threshold else Reading.BETWEEN


class NightSwitch:
    """The state of one camera: day or night."""

    def __init__(self, settings: NightSettings, *, night: bool = False) -> None:
        self.settings = settings
        """May be replaced at any time; evidence gathered so far is kept."""
        self.state = State.NIGHT if night else State.DAY
        self.override: Override = "auto"
        self._frames = 0
        self._since_ns = 0
        self._last_ns: int | None = None
        self._switches: deque[int] = deque(maxlen=1000)

    @property
    def is_night(self) -> bool:
        """True at night."""
        return self.state in (State.NIGHT, State.BRIGHTENING)

    def update(
        self, value: float, low: float, high: float, captured_ns: int, dwell_factor: float = 1.0
    ) -> Decision | None:
        """Takes one settled frame's brightness. Returns: a decision where this frame completes the evidence.

        `dwell_factor` multiplies the dwell where the brightness is less trustworthy (unknown exposure).
        """
        self._check_gap(captured_ns)
        if self.override != "auto":
            return None
        if not self.settings.enable:
            return self._end_night(captured_ns)
        before, reading = self.state, reading_of(low, high, self.settings)
        self.state = NEXT[before, reading]
        if self.state not in TARGET:
            return None
        if self.state is not before:
            self._frames, self._since_ns = 0, captured_ns
        self._frames += 1
        if not self._has_evidence(captured_ns, dwell_factor) or self.lock_at(captured_ns).seconds > 0:
            return None
        self.state = TARGET[self.state]
        self._switches.append(captured_ns)
        return Decision(self.is_night, captured_ns, self._explain(value, captured_ns))

    def force(self, override: Override, captured_ns: int) -> Decision | None:
        """Obeys a user: night `on` or `off` at once, or `auto` again from the present state.

        A user's switches do not count for `hold_s` and the lock-out: presses of a button must not bind the automatic.
        """
        self.override = override
        self.state = State.NIGHT if self.is_night else State.DAY
        if override == "auto" or (override == "on") == self.is_night:
            return None
        self.state = State.NIGHT if override == "on" else State.DAY
        return Decision(self.is_night, captured_ns, f"forced {override}")

    def _end_night(self, captured_ns: int) -> Decision | None:
        """Returns to day, whatever the brightness: `night.enable` was switched off."""
        if not self.is_night:
            return None
        self.state = State.DAY
        return Decision(False, captured_ns, "night.enable = false")

    def lock_at(self, now_ns: int) -> Lock:
        """Returns how long no switch is allowed: `hold_s` after any, longer after many (lock-out).

        Precedent: Cisco's IP cameras lock for 20 minutes after 3 switches within 20 minutes.
        """
        if not self._switches:
            return Lock(0.0)
        since_s = (now_ns - self._switches[-1]) / 1e9
        limit = self.settings.lockout_switches
        if limit and len(self._switches) >= limit:
            span_s = (self._switches[-1] - self._switches[-limit]) / 1e9
            if span_s <= self.settings.lockout_s and self.settings.lockout_s > self.settings.hold_s:
                return Lock(max(0.0, self.settings.lockout_s - since_s), "night.lockout_s")
        return Lock(max(0.0, self.settings.hold_s - since_s), "night.hold_s")

    def _has_evidence(self, now_ns: int, dwell_factor: float) -> bool:
        settings = self.settings
        frames = settings.min_dark_frames if self.state is State.DARKENING else settings.min_bright_frames
        return self._frames >= frames and now_ns - self._since_ns >= settings.dwell_s * dwell_factor * 1e9

    def _check_gap(self, captured_ns: int) -> None:
        """Drops the evidence unless time runs forward and without a gap: only then are frames consecutive."""
        last, self._last_ns = self._last_ns, captured_ns
        if last is None:
            return
        gap_s = (captured_ns - last) / 1e9
        if gap_s < 0:  # another machine's recording, or a replay started again: old times mean nothing now
            self._switches.clear()
        if gap_s < 0 or gap_s > max(MIN_GAP_S, self.settings.dwell_s, 3e-6 * self.settings.exposure_us):
            self.state = State.NIGHT if self.is_night else State.DAY

    def _explain(self, value: float, now_ns: int) -> str:
        relation, limit = (
            ("<", self.settings.dark_threshold) if self.is_night else (">", self.settings.bright_threshold)
        )
        return f"level={value:.1f}{relation}{limit:g} frames={self._frames} for={(now_ns - self._since_ns) / 1e9:.1f}s"


def frame_of(brightness: Brightness, index: int = 0) -> tuple[float, float, float]:
    """Returns value, low and high of one frame of a batch."""
    return float(brightness.value[index]), float(brightness.low[index]), float(brightness.high[index])
