"""The throttle of viewers: decides from CPU load and recorder lag which part of their rate they get.

Recording wins under contention. Pure: the loop measures, this module decides.
"""

from __future__ import annotations

from msgspec import Struct

HOLD_S = 5.0
"""Least time between two steps, so that the rate does not oscillate."""

CALM = 0.8
"""A step back needs a load below this part of the limit."""

STEPS = (1.0, 0.5, 0.25, 0.1)
"""Parts of the requested rate that are served, from calm to very busy."""


class Load(Struct, frozen=True):
    """The load of the machine."""

    cpu_percent: float
    """Of all cores, smoothed over seconds."""
    recorder_lag_s: float
    """Lag of the slowest recorder; 0: none runs."""


class LoadLimits(Struct, frozen=True):
    """The limits, from [mjpeg_server]."""

    cpu_percent: float
    recorder_lag_s: float


class Throttle:
    """The part of the requested rate that is served now."""

    def __init__(self) -> None:
        self._step = 0
        self._changed_s = float("-inf")
        self.reason = ""
        """The reason why viewers are slowed down; empty: they are not."""

    @property
    def share(self) -> float:
        """Part of the requested rate, 0.1..1."""
        return STEPS[self._step]

    def update(self, load: Load, limits: LoadLimits, now_s: float) -> bool:
        """Takes a measurement; `now_s` is monotonic. Returns: whether the share has changed."""
        reason = _reason_of(load, limits)
        step = self._step
        if reason:
            step = min(self._step + 1, len(STEPS) - 1)
        elif _is_calm(load, limits):
            step = max(self._step - 1, 0)
        if step == self._step or now_s - self._changed_s < HOLD_S:
            self.reason = (reason or self.reason) if self._step else ""
            return False
        self._step, self._changed_s = step, now_s
        self.reason = (reason or self.reason) if step else ""
        return True


def _reason_of(load: Load, limits: LoadLimits) -> str:
    if load.recorder_lag_s > limits.recorder_lag_s:
        return f"recorder is {load.recorder_lag_s:.1f} s behind (limit {limits.recorder_lag_s:g} s)"
    if load.cpu_percent > limits.cpu_percent:
        return f"CPU load is {load.cpu_percent:.0f} % (limit {limits.cpu_percent:g} %)"
    return ""


def _is_calm(load: Load, limits: LoadLimits) -> bool:
    return load.cpu_percent < CALM * limits.cpu_percent and load.recorder_lag_s < CALM * limits.recorder_lag_s
