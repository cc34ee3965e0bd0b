"""Viewers give way: decides from load and recorder lag how much slower they are served, and says why.

Recording wins under contention (features.md E8). Pure: the loop measures, this decides.
"""

from __future__ import annotations

from dataclasses import dataclass

HOLD_S = 5.0
"""No step sooner than this after the last one, so that the rate does not swing."""

CALM = 0.8
"""Back a step only when load is below this part of the limit."""

STEPS = (1.0, 0.5, 0.25, 0.1)
"""Parts of the wanted rate that are served, from calm to very busy."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the machine is going through."""

    cpu_percent: float
    """Of all cores, smoothed over seconds."""
    recorder_lag_s: float
    """How far the slowest recorder is behind; 0: none runs."""


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """Settings of [mjpeg_server]."""

    cpu_percent: float
    recorder_lag_s: float


class Throttle:
    """How much of the wanted rate is served."""

    def __init__(self) -> None:
        self._step = 0
        self._changed_s = float("-inf")
        self.reason = ""
        """Why viewers are slowed down; empty: they are not."""

    @property
    def share(self) -> float:
        """Part of the wanted rate, 0.1..1."""
        return STEPS[self._step]

    def update(self, load: Load, limits: LoadLimits, now_s: float) -> bool:
        """Take a measurement. Returns: whether the share has changed."""
        reason = _trouble(load, limits)
        wanted = self._step
        if reason:
            wanted = min(self._step + 1, len(STEPS) - 1)
        elif _calm(load, limits):
            wanted = max(self._step - 1, 0)
        if wanted == self._step or now_s - self._changed_s < HOLD_S:
            self.reason = (reason or self.reason) if self._step else ""
            return False
        self._step, self._changed_s = wanted, now_s
        self.reason = (reason or self.reason) if wanted else ""
        return True


def _trouble(load: Load, limits: LoadLimits) -> str:
    if load.recorder_lag_s > limits.recorder_lag_s:
        return f"recorder is {load.recorder_lag_s:.1f} s behind (limit {limits.recorder_lag_s:g} s)"
    if load.cpu_percent > limits.cpu_percent:
        return f"CPU load is {load.cpu_percent:.0f} % (limit {limits.cpu_percent:g} %)"
    return ""


def _calm(load: Load, limits: LoadLimits) -> bool:
    return load.cpu_percent < CALM * limits.cpu_percent and load.recorder_lag_s < CALM * limits.recorder_lag_s
