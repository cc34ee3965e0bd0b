"""Turns measured frames into decisions about day and night, and into requests for the camera's exposure.

Rules of this file: no I/O and no clock but the frames' own. `analyzer/loop.py` feeds it the frames of the ring, and
the simulation of docs/night.md whole days.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from analyzer.night import exposure_control
from analyzer.night.brightness import Bytes, Measurement, estimate_brightness, scene_ev_of
from analyzer.night.decision import TARGET, Decision, NightSwitch, Override, frame_of
from analyzer.night.exposure_control import ExposureSetting
from analyzer.night.exposure_estimate import DWELL_FACTOR, ExposureScale, ExposureSource
from analyzer.night.own_lamp import OwnLamp
from analyzer.night.settling import ExposureSettling, FrameInfo
from analyzer.night.transfer_curve import Response
from analyzer.settings import NightSettings
from shmcam.imaging.exposure_target import VERY_SATURATED

REPEAT_S = 5.0
"""Pause between requests while the camera is not in its mode (capture was restarted, or the hub was away)."""


class ExposureRequest(Struct, frozen=True):
    """A mode and an exposure for the camera."""

    mode: str
    """video, still or slow_video."""
    exposure: ExposureSetting
    """still: the exposure; slow_video: the longest one auto exposure may choose; video: zeros."""
    reason: str


class FrameAssessment(Struct, frozen=True):
    """The scene brightness of one frame, and what follows from it."""

    level: float
    """Scene brightness on the video-mode scale, mean luma 0-255; the thresholds are compared with it."""
    low: float
    high: float
    ev: float
    """Scene brightness in stops."""
    source: ExposureSource
    settled: bool
    """True if the frame counted as evidence."""
    own_lamp: bool = False
    """True if the light of the camera's own lamp was taken off."""
    decision: Decision | None = None
    request: ExposureRequest | None = None


class ExposedFrame(Struct, frozen=True):
    """A frame whose exposure is known or estimated."""

    info: FrameInfo
    pixels: Bytes
    """Luma on a sparse grid."""
    light: float
    """Mean relative light."""
    saturated: float
    """Fraction of pixels at full scale."""
    product_s: float
    source: ExposureSource
    settled: bool
    retry: ExposureRequest | None
    """A shorter exposure, where this one is too white to learn from."""
    scene_share: float = 1.0
    """The share of the light that does not come from the camera's own lamp."""

    def ratio_to(self, reference_s: float) -> float:
        """Returns the factor from this frame's light to that of the scene alone at the reference exposure."""
        return reference_s / self.product_s * self.scene_share

    @property
    def rate(self) -> float:
        """Relative light per second of exposure product."""
        return self.light / self.product_s


class NightController:
    """The night and the exposure of one camera."""

    def __init__(self, settings: NightSettings, *, night: bool = False) -> None:
        self.switch = NightSwitch(settings, night=night)
        self._scale = ExposureScale()
        self._settling = ExposureSettling()
        self._own_lamp = OwnLamp()
        self._requested_ns: int | None = None
        self._last: ExposedFrame | None = None

    @property
    def settings(self) -> NightSettings:
        """The settings in force."""
        return self.switch.settings

    @settings.setter
    def settings(self, settings: NightSettings) -> None:
        self.switch.settings = settings

    def is_steady(self, *, is_night: bool) -> bool:
        """Tells whether no frame is needed soon to decide, to learn or to ask. `is_night`: capture is in night mode."""
        return self.switch.state not in TARGET and not self._scale.is_learning and self.switch.is_night == is_night

    def observe(self, info: FrameInfo, pixels: Bytes, measurement: Measurement, response: Response) -> FrameAssessment:
        """Takes the next frame: its grid and its measurement (of this one frame)."""
        frame = self.estimate_exposure(
            info, pixels, float(measurement.light[0]), float(measurement.saturated[0]), response
        )
        ratio = np.array([frame.ratio_to(exposure_control.reference_s_of(self.settings))])
        return self.decide(frame, *frame_of(estimate_brightness(measurement, response, ratio)))

    def estimate_exposure(
        self, info: FrameInfo, pixels: Bytes, light: float, saturated: float, response: Response
    ) -> ExposedFrame:
        """Finds out whether the frame counts, and how much light its exposure gathered; the first half of `observe`."""
        settled = self._settling.counts(info)
        retry = None
        if settled and self._scale.is_learning:
            retry = self._learn(info, pixels, saturated, response)
        reference_s = exposure_control.reference_s_of(self.settings)
        estimate = self._scale.estimate(info.reported, light, saturated, reference_s, day=not self.switch.is_night)
        counts, share = settled and retry is None, 1.0
        if counts and estimate.source in (ExposureSource.EV, ExposureSource.LUX) and self.switch.is_night:
            share = self._own_lamp.observe(info.captured_ns, light / estimate.product_s, saturated)
        return ExposedFrame(info, pixels, light, saturated, estimate.product_s, estimate.source, counts, retry, share)

    def decide(self, frame: ExposedFrame, level: float, low: float, high: float) -> FrameAssessment:
        """Decides on the brightness at the reference exposure; the second half of `observe`."""
        ev = scene_ev_of(frame.light, frame.product_s)
        assessment = FrameAssessment(level, low, high, ev, frame.source, frame.settled, frame.scene_share < 1.0)
        if not frame.settled:
            return replace(assessment, request=frame.retry or self._request_mode_again(frame.info))
        self._last = frame
        decision = self.switch.update(level, low, high, frame.info.captured_ns, DWELL_FACTOR[frame.source])
        if decision:
            return replace(assessment, decision=decision, request=self._request_switch(decision))
        request = self._request_mode_again(frame.info) or self._request_step(frame)
        return replace(assessment, request=request) if request else assessment

    def force(self, override: Override, captured_ns: int) -> tuple[Decision | None, ExposureRequest | None]:
        """Obeys `night on|off|auto`."""
        decision = self.switch.force(override, captured_ns)
        return decision, self._request_switch(decision) if decision else None

    def _learn(self, info: FrameInfo, pixels: Bytes, saturated: float, response: Response) -> ExposureRequest | None:
        """Compares with the frame before a change of an unknown exposure. Returns: a request where that fails."""
        exposure = self._settling.exposure
        if not math.isnan(info.reported.product_s) or exposure is None:
            self._scale.forget()
        elif not self._scale.learn(pixels, saturated, response):
            shorter = exposure_control.split_product(exposure.product_s * exposure_control.MOST_DOWN, self.settings)
            return self._request(shorter, info.captured_ns, f"learning the exposure, saturated={saturated:.2f}")
        return None

    def _request_switch(self, decision: Decision) -> ExposureRequest:
        if decision.night and self._last is not None:
            self._own_lamp.begin_night(decision.captured_ns, self._last.rate)
        else:
            self._own_lamp.end_night()
        return self._request_change(
            self._first_exposure() if decision.night else None, decision.captured_ns, decision.reason
        )

    def _first_exposure(self) -> ExposureSetting:
        """Returns the exposure with which the night starts."""
        if self.settings.mode == "slow_video":
            return exposure_control.longest_exposure_of(self.settings)
        rate = self._last.rate if self._last else 0.0
        return exposure_control.choose_first(rate * exposure_control.reference_s_of(self.settings), self.settings)

    def _request_step(self, frame: ExposedFrame) -> ExposureRequest | None:
        """Requests the next exposure where the night's present one no longer fits."""
        if not self.switch.is_night or self.settings.mode == "slow_video":
            return None  # in slow_video the camera's own auto exposure follows the light
        requested, now_s = self._settling.exposure, frame.product_s
        light, saturated = frame.light, frame.saturated
        if frame.source is ExposureSource.RAW:
            # A guess at the scale moves no exposure, but one below the requested one makes a white frame readable.
            if requested is None or saturated < VERY_SATURATED:
                return None
            now_s = requested.product_s
        exposure = exposure_control.choose_next(light, saturated, now_s, self.settings)
        if exposure is None or self._settling.refuses(exposure, frame.info):
            return None
        return self._request_change(exposure, frame.info.captured_ns, f"light={light:.3f} saturated={saturated:.2f}")

    def _request_mode_again(self, info: FrameInfo) -> ExposureRequest | None:
        """Requests the mode again where capture is in the other one, as after its restart."""
        active = self.settings.enable or self.switch.override != "auto"
        recently = self._requested_ns is not None and abs(info.captured_ns - self._requested_ns) < REPEAT_S * 1e9
        if not active or info.is_night == self.switch.is_night or recently:
            return None
        exposure = (self._settling.exposure or self._first_exposure()) if self.switch.is_night else None
        return self._request_change(exposure, info.captured_ns, "the camera is in the other mode")

    def _request_change(self, exposure: ExposureSetting | None, now_ns: int, reason: str) -> ExposureRequest:
        if exposure is None or self._last is None or self.settings.mode == "slow_video":
            self._scale.forget()
        else:
            self._scale.begin_learning(self._last.pixels, self._last.product_s)
        return self._request(exposure, now_ns, reason)

    def _request(self, exposure: ExposureSetting | None, now_ns: int, reason: str) -> ExposureRequest:
        self._requested_ns = now_ns
        if exposure is None:
            self._settling.begin(None)
            return ExposureRequest("video", ExposureSetting(0, 0.0), reason)
        self._settling.begin(exposure if self.settings.mode == "still" else None)
        return ExposureRequest(self.settings.mode, exposure, reason)
