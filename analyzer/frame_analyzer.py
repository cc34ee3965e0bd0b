"""The analyzer's mind: one look at a frame in, one record and what happened out. No I/O, no clock of its own."""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.motion.detector import NOTHING, Motion, MotionDetector
from analyzer.motion.events import MotionEvent, MotionEvents
from analyzer.night.brightness import Measurement, histogram, measure
from analyzer.night.controller import ExposureRequest, FrameVerdict, NightController
from analyzer.night.decision import Decision, Override
from analyzer.night.response import Response, response
from analyzer.night.settling import FrameExposure
from analyzer.pixels import FrameSample
from analyzer.settings import AnalyzerSettings, MotionSettings, NightSettings
from shm_ring import Flags


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What one frame came to."""

    look: FrameSample
    measured: Measurement
    verdict: FrameVerdict
    motion: Motion
    night: bool
    """Day or night after this frame."""
    decision: Decision | None
    request: ExposureRequest | None
    movement: MotionEvent | None


class FrameAnalyzer:
    """Everything that is known about one camera from frame to frame."""

    def __init__(self, night: NightSettings, analyzer: AnalyzerSettings, motion: MotionSettings) -> None:
        self.night_rules, self.analyzer, self.motion_rules = night, analyzer, motion
        self._judge: NightController | None = None
        self._detector = MotionDetector(motion)
        self._movement = MotionEvents(motion)
        self._override: Override = "auto"
        self._changed_ns: int | None = None
        self.last: FrameResult | None = None

    def adopt(self, night: NightSettings, analyzer: AnalyzerSettings, motion: MotionSettings) -> None:
        """Take changed settings over; what was learned stays."""
        self.night_rules, self.analyzer, self.motion_rules = night, analyzer, motion
        self._detector.settings = self._movement.settings = motion
        if self._judge is not None:
            self._judge.rules = night

    def observe(self, look: FrameSample) -> FrameResult:
        """Take the next frame."""
        curve = self._curve(look)
        judge = self._judge_for(look)
        measured = measure(histogram(look.pixels), curve)
        shot = FrameExposure(look.meta.captured_ns, look.own, look.has(Flags.SETTLING), look.has(Flags.NIGHT))
        verdict = judge.observe(shot, look.pixels, measured, curve)
        motion = self._motion(look, verdict, curve)
        movement = self._movement.update(motion, look.meta.frame_id, look.meta.captured_ns)
        if verdict.decision:
            self._changed_ns = verdict.decision.captured_ns
        seen = FrameResult(
            look, measured, verdict, motion, judge.watch.night, verdict.decision, verdict.request, movement
        )
        self.last = seen
        return seen

    def force(self, override: Override) -> tuple[Decision | None, ExposureRequest | None]:
        """Obey `night on|off|auto`; before the first frame it is remembered."""
        self._override = override
        if self._judge is None or self.last is None:
            return None, None
        decision, request = self._judge.force(override, self.last.look.meta.captured_ns)
        if decision:
            self._changed_ns = decision.captured_ns
        return decision, request

    @property
    def night(self) -> bool:
        """Whether it is night now."""
        return self._judge is not None and self._judge.watch.night

    @property
    def override(self) -> Override:
        """Who decides: the brightness (`auto`) or a person (`on`, `off`)."""
        return self._override

    @property
    def moving(self) -> bool:
        """Whether a motion event is on."""
        return self._movement.active

    def locked_s(self, captured_ns: int) -> float:
        """Seconds until the next switch is allowed."""
        return self._judge.watch.locked_s(captured_ns) if self._judge else 0.0

    def since_s(self, captured_ns: int) -> float:
        """Seconds since day or night began; -1 where it has not changed since this process started."""
        return -1.0 if self._changed_ns is None else max(0.0, (captured_ns - self._changed_ns) / 1e9)

    def _curve(self, look: FrameSample) -> Response:
        return response(self.analyzer.response, limited=look.limited, black_level=self.analyzer.black_level)

    def _judge_for(self, look: FrameSample) -> NightController:
        """Begin in the mode the camera is in: an analyzer restarted at night carries the night on."""
        if self._judge is None:
            self._judge = NightController(self.night_rules, night=look.has(Flags.NIGHT))
            if self._override != "auto":
                self._judge.force(self._override, look.meta.captured_ns)
        return self._judge

    def _motion(self, look: FrameSample, verdict: FrameVerdict, curve: Response) -> Motion:
        if not self.motion_rules.enable or not verdict.settled:
            return NOTHING
        return self._detector.observe(look.pixels, look.meta.captured_ns, look.own.product_s, curve)
