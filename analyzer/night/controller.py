"""From scored frames to decisions and exposures: what each frame says, and what the camera is to do.

Rules of this file: no I/O and no clock but the frames' own. `analyzer/loop.py` feeds it the ring, the simulation of
docs/night.md feeds it whole days.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from analyzer.night import exposure_control
from analyzer.night.brightness import Bytes, Measurement, brightness, scene_ev
from analyzer.night.decision import Decision, NightWatch, Override, one
from analyzer.night.exposure_control import ExposureSetting
from analyzer.night.exposure_estimate import PATIENCE, ExposureScale, ExposureSource
from analyzer.night.response import Response
from analyzer.night.settling import ExposureSettling, FrameExposure
from analyzer.settings import NightSettings

REPEAT_S = 5.0
"""Ask again where the camera is not in the mode it should be in (capture was restarted, or the hub was away)."""


@dataclass(frozen=True, slots=True)
class ExposureRequest:
    """What the camera is to do."""

    mode: str
    """video, still or slow_video."""
    exposure: ExposureSetting
    """still: the exposure; slow_video: the longest one auto exposure may choose; video: zeros."""
    reason: str


@dataclass(frozen=True, slots=True)
class FrameVerdict:
    """What one frame came to."""

    level: float
    """Scene brightness on the video-mode scale, mean luma 0-255: what the thresholds are compared with."""
    low: float
    high: float
    ev: float
    """Scene brightness in stops."""
    source: ExposureSource
    settled: bool
    """Whether the frame counted."""
    decision: Decision | None = None
    request: ExposureRequest | None = None


@dataclass(frozen=True, slots=True)
class Exposed:
    """A frame whose exposure has been judged."""

    shot: FrameExposure
    pixels: Bytes
    light: float
    saturated: float
    product_s: float
    source: ExposureSource
    settled: bool
    retry: ExposureRequest | None

    @property
    def rate(self) -> float:
        """Relative light per second of exposure product."""
        return self.light / self.product_s


class NightController:
    """Night and exposure of one camera."""

    def __init__(self, rules: NightSettings, *, night: bool = False) -> None:
        self.watch = NightWatch(rules, night=night)
        self._scale = ExposureScale()
        self._settling = ExposureSettling()
        self._asked_ns: int | None = None
        self._seen: Exposed | None = None

    @property
    def rules(self) -> NightSettings:
        """The settings in force."""
        return self.watch.rules

    @rules.setter
    def rules(self, rules: NightSettings) -> None:
        self.watch.rules = rules

    def observe(self, shot: FrameExposure, pixels: Bytes, measured: Measurement, response: Response) -> FrameVerdict:
        """Take the next frame: its grid and its measurement (of this one frame)."""
        known = self.expose(shot, pixels, float(measured.light[0]), float(measured.saturated[0]), response)
        ratio = np.array([exposure_control.reference_s(self.rules) / known.product_s])
        return self.decide(known, *one(brightness(measured, response, ratio)))

    def expose(self, shot: FrameExposure, pixels: Bytes, light: float, saturated: float, response: Response) -> Exposed:
        """First half: whether the frame counts, and how much light its exposure gathered."""
        settled = self._settling.passed(shot)
        retry = None
        if settled and self._scale.learning:
            retry = self._learn(shot, pixels, saturated, response)
        reference_s = exposure_control.reference_s(self.rules)
        known = self._scale.of(shot.own, light, saturated, reference_s, day=not self.watch.night)
        return Exposed(shot, pixels, light, saturated, known.product_s, known.source, settled and retry is None, retry)

    def decide(self, frame: Exposed, level: float, low: float, high: float) -> FrameVerdict:
        """Second half, once the brightness at the reference exposure is known."""
        ev = scene_ev(frame.light, frame.product_s)
        verdict = FrameVerdict(level, low, high, ev, frame.source, frame.settled)
        if not frame.settled:
            return replace(verdict, request=frame.retry or self._reconcile(frame.shot))
        self._seen = frame
        decision = self.watch.update(level, low, high, frame.shot.captured_ns, PATIENCE[frame.source])
        if decision:
            return replace(verdict, decision=decision, request=self._switch(decision))
        request = self._reconcile(frame.shot) or self._step(frame)
        return replace(verdict, request=request) if request else verdict

    def force(self, override: Override, captured_ns: int) -> tuple[Decision | None, ExposureRequest | None]:
        """Obey `night on|off|auto`."""
        decision = self.watch.force(override, captured_ns)
        return decision, self._switch(decision) if decision else None

    def _learn(
        self, shot: FrameExposure, pixels: Bytes, saturated: float, response: Response
    ) -> ExposureRequest | None:
        """Unknown exposure, just changed: compare with the frame before. Returns what to try where that is white."""
        commanded = self._settling.commanded
        if not math.isnan(shot.own.product_s) or commanded is None:
            self._scale.forget()
        elif not self._scale.learn(pixels, saturated, response):
            shorter = exposure_control.split(commanded.product_s * exposure_control.MOST_DOWN, self.rules)
            return self._request(shorter, shot.captured_ns, f"learning the exposure, saturated={saturated:.2f}")
        return None

    def _switch(self, decision: Decision) -> ExposureRequest:
        return self._change(self._first() if decision.night else None, decision.captured_ns, decision.reason)

    def _first(self) -> ExposureSetting:
        """Where the night's exposure starts."""
        if self.rules.mode == "slow_video":
            return exposure_control.longest(self.rules)
        rate = self._seen.rate if self._seen else 0.0
        return exposure_control.first(rate * exposure_control.reference_s(self.rules), self.rules)

    def _step(self, frame: Exposed) -> ExposureRequest | None:
        """The next rung of the ladder, where the night's exposure no longer fits."""
        if not self.watch.night or self.rules.mode == "slow_video":
            return None  # in slow_video the camera's own auto exposure is the ladder
        commanded, now_s = self._settling.commanded, frame.product_s
        light, saturated = frame.light, frame.saturated
        if frame.source is ExposureSource.RAW:
            # A guess at the scale moves no exposure, but rungs below the commanded one make a white frame readable.
            if commanded is None or saturated < exposure_control.VERY_SATURATED:
                return None
            now_s = commanded.product_s
        rung = exposure_control.step(light, saturated, now_s, self.rules)
        if rung is None or self._settling.refuses(rung, frame.shot):
            return None
        return self._change(rung, frame.shot.captured_ns, f"light={light:.3f} saturated={saturated:.2f}")

    def _reconcile(self, shot: FrameExposure) -> ExposureRequest | None:
        """Ask again where capture is in the other mode, as after its restart."""
        active = self.rules.enable or self.watch.override != "auto"
        recently = self._asked_ns is not None and abs(shot.captured_ns - self._asked_ns) < REPEAT_S * 1e9
        if not active or shot.night == self.watch.night or recently:
            return None
        exposure = (self._settling.commanded or self._first()) if self.watch.night else None
        return self._change(exposure, shot.captured_ns, "the camera is in the other mode")

    def _change(self, exposure: ExposureSetting | None, now_ns: int, reason: str) -> ExposureRequest:
        if exposure is None or self._seen is None or self.rules.mode == "slow_video":
            self._scale.forget()
        else:
            self._scale.changing(self._seen.pixels, self._seen.product_s)
        return self._request(exposure, now_ns, reason)

    def _request(self, exposure: ExposureSetting | None, now_ns: int, reason: str) -> ExposureRequest:
        self._asked_ns = now_ns
        if exposure is None:
            self._settling.command(None)
            return ExposureRequest("video", ExposureSetting(0, 0.0), reason)
        self._settling.command(exposure if self.rules.mode == "still" else None)
        return ExposureRequest(self.rules.mode, exposure, reason)
