"""Analyses one frame after the other: a sample of a frame in, its scores and what begins or ends with it out.

No I/O, no clock of its own.
"""

from __future__ import annotations

from msgspec import Struct

from analyzer.frame_sample import FrameSample
from analyzer.motion.detector import EXPOSURE_STEP, NO_MOTION, Motion, MotionDetector
from analyzer.motion.events import MotionEvent, MotionEvents
from analyzer.night.brightness import Measurement, histogram_of, measure
from analyzer.night.controller import ExposureRequest, FrameAssessment, NightController
from analyzer.night.decision import Decision, Lock, Override
from analyzer.night.settling import FrameInfo
from analyzer.night.transfer_curve import Response, response_of
from analyzer.settings import AnalyzerSettings, MotionSettings, NightSettings
from shm_ring import Flags

LOOK_NS = 200_000_000
"""The time between two measurements of brightness, and two looks at what does not move: decisions take longer."""


class FrameResult(Struct, frozen=True):
    """The scores of one frame, and what begins or ends with it."""

    sample: FrameSample
    measurement: Measurement
    assessment: FrameAssessment
    motion: Motion
    is_night: bool
    """Night or day after this frame."""
    decision: Decision | None
    request: ExposureRequest | None
    motion_event: MotionEvent | None


class FrameAnalyzer:
    """The state of one camera from frame to frame."""

    def __init__(self, night: NightSettings, analyzer: AnalyzerSettings, motion: MotionSettings) -> None:
        self.night_settings, self.settings, self.motion_settings = night, analyzer, motion
        self._controller: NightController | None = None
        self._detector = MotionDetector(motion)
        self._motion_events = MotionEvents(motion)
        self._override: Override = "auto"
        self._changed_ns: int | None = None
        self.last: FrameResult | None = None
        self._measured: FrameSample | None = None
        """The frame whose brightness was measured last."""

    def apply_settings(self, night: NightSettings, analyzer: AnalyzerSettings, motion: MotionSettings) -> None:
        """Takes changed settings over; what was learned stays."""
        self.night_settings, self.settings, self.motion_settings = night, analyzer, motion
        self._detector.settings = self._motion_events.settings = motion
        if self._controller is not None:
            self._controller.settings = night

    def shows_nothing_new(self, sample: FrameSample) -> bool:
        """Tells whether the last result is this frame's too: measured a moment ago, and nothing has moved since."""
        last = self.last
        return (
            last is not None
            and sample.column is None
            and not (last.motion.area or self.is_moving)
            and self._is_measured(sample)
            and not (self.motion_settings.enable and self._detector.sees_change(sample.pixels))
        )

    def analyze(self, sample: FrameSample) -> FrameResult:
        """Analyses the next frame: for motion always, its brightness where it was not measured a moment ago."""
        meta = sample.meta
        response = response_of(self.settings.response, limited=sample.limited, black_level=self.settings.black_level)
        if self.last is not None and self._is_measured(sample):
            measurement, assessment = self.last.measurement, self.last.assessment
        else:
            measurement, assessment = self._measure(sample, response)
        motion = self._detect_motion(sample, assessment, response)
        event = self._motion_events.update(motion, meta.frame_id, meta.captured_ns)
        if assessment.decision:
            self._changed_ns = assessment.decision.captured_ns
        self.last = FrameResult(
            sample,
            measurement,
            assessment,
            motion,
            self.is_night,
            assessment.decision,
            assessment.request,
            event,
        )
        return self.last

    def _measure(self, sample: FrameSample, response: Response) -> tuple[Measurement, FrameAssessment]:
        """Measures the brightness, for night and exposure."""
        meta, controller = sample.meta, self._controller or self._make_controller(sample)
        measurement = measure(histogram_of(sample.pixels), response)
        info = FrameInfo(
            meta.captured_ns, sample.exposure, sample.has_flag(Flags.SETTLING), sample.has_flag(Flags.NIGHT)
        )
        self._measured = sample
        return measurement, controller.observe(info, sample.pixels, measurement, response)

    def _is_measured(self, sample: FrameSample) -> bool:
        """Tells whether the last measurement is this frame's too: it is young, and nothing depends on the next."""
        last, before, controller = self.last, self._measured, self._controller
        if last is None or before is None or controller is None:
            return False
        changed_exposure = abs(sample.exposure.product_s / before.exposure.product_s - 1.0) > EXPOSURE_STEP
        return (
            0 <= sample.meta.captured_ns - before.meta.captured_ns < LOOK_NS
            and (sample.meta.flags, sample.limited) == (before.meta.flags, before.limited)
            and sample.pixels.shape == before.pixels.shape
            and not changed_exposure  # never true where it is unknown
            and last.assessment.settled
            and not (last.assessment.decision or last.assessment.request)
            and controller.is_steady(is_night=sample.has_flag(Flags.NIGHT))
        )

    def force(self, override: Override) -> tuple[Decision | None, ExposureRequest | None]:
        """Obeys `night on|off|auto`; before the first frame it is remembered."""
        self._override = override
        if self._controller is None or self.last is None:
            return None, None
        decision, request = self._controller.force(override, self.last.sample.meta.captured_ns)
        if decision:
            self._changed_ns = decision.captured_ns
        return decision, request

    @property
    def is_night(self) -> bool:
        """True at night; before the first frame only a user can have decided so."""
        return self._override == "on" if self._controller is None else self._controller.switch.is_night

    @property
    def override(self) -> Override:
        """`auto`: brightness decides; `on`, `off`: a user decided."""
        return self._override

    @property
    def is_moving(self) -> bool:
        """True during a motion event."""
        return self._motion_events.is_active

    def lock_at(self, captured_ns: int) -> Lock:
        """Returns how long no switch is allowed; while a user's choice holds, none is locked."""
        if self._controller is None or self._override != "auto":
            return Lock(0.0)
        return self._controller.switch.lock_at(captured_ns)

    def since_s(self, captured_ns: int) -> float:
        """Returns the seconds since day or night began; -1 where it has not changed since this process started."""
        return -1.0 if self._changed_ns is None else max(0.0, (captured_ns - self._changed_ns) / 1e9)

    def _make_controller(self, sample: FrameSample) -> NightController:
        """Begins in the mode the camera is in: an analyzer restarted at night carries the night on."""
        self._controller = NightController(self.night_settings, night=sample.has_flag(Flags.NIGHT))
        if self._override != "auto":
            self._controller.force(self._override, sample.meta.captured_ns)
        return self._controller

    def _detect_motion(self, sample: FrameSample, assessment: FrameAssessment, response: Response) -> Motion:
        if not self.motion_settings.enable or not assessment.settled:
            return NO_MOTION
        return self._detector.observe(sample.pixels, sample.meta.captured_ns, sample.exposure.product_s, response)
