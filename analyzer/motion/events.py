"""Makes events of the motion of single frames, with time before and after.

Rules of this file: no clock but the frames', no messages; at most one event is open at a time.
"""

from __future__ import annotations

from msgspec import Struct

from analyzer.motion.detector import NO_MOTION, Motion
from analyzer.settings import MotionSettings


class MotionEvent(Struct, frozen=True):
    """An event that began, or one that ended."""

    began: bool
    captured_ns: int
    """Sensor time of the event's beginning (pre_s before the first motion) or end (post_s after the last)."""
    frame_id: int
    """First moving frame, or last."""
    peak: Motion
    """The frame with most motion so far."""
    duration_s: float
    """From begin to end, pre and post included; 0 when it begins."""


class MotionEvents:
    """The motion events of one camera."""

    def __init__(self, settings: MotionSettings) -> None:
        self.settings = settings
        self.is_active = False
        self._frames = 0
        self._first = (0, 0)
        self._last = (0, 0)
        self._began_ns = 0
        self._peak = NO_MOTION

    def update(self, motion: Motion, frame_id: int, captured_ns: int) -> MotionEvent | None:
        """Takes one frame's motion. Returns: an event that begins or ends with it."""
        if captured_ns < self._last[1]:
            self._frames = 0  # time ran backward: another recording
        moving = motion.area >= self.settings.min_area
        if moving:
            self._note(motion, frame_id, captured_ns)
        elif not self.is_active:
            self._frames = 0
        if self.is_active:
            return self._end_if_still(captured_ns)
        if moving and self._frames >= self.settings.min_frames:
            self.is_active = True
            self._began_ns = self._first[1] - round(self.settings.pre_s * 1e9)
            return MotionEvent(True, self._began_ns, self._first[0], self._peak, 0.0)
        return None

    def _note(self, motion: Motion, frame_id: int, captured_ns: int) -> None:
        if not self.is_active and self._frames == 0:
            self._first, self._peak = (frame_id, captured_ns), motion
        self._frames += 1
        self._last = (frame_id, captured_ns)
        if motion.score > self._peak.score:
            self._peak = motion

    def _end_if_still(self, now_ns: int) -> MotionEvent | None:
        settings = self.settings
        still_s = (now_ns - self._last[1]) / 1e9
        is_over = (now_ns - self._began_ns) / 1e9 >= settings.max_event_s
        if still_s < max(settings.gap_s, settings.post_s) and still_s >= 0 and not is_over:
            return None
        self.is_active, self._frames = False, 0
        ended_ns = self._last[1] + round(settings.post_s * 1e9)
        return MotionEvent(False, ended_ns, self._last[0], self._peak, (ended_ns - self._began_ns) / 1e9)
