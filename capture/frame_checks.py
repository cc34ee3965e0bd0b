"""Counts frames the camera lost, from the gaps between sensor timestamps and from its own frame counter. Pure.

Tells which frames were taken while controls had not settled yet. Pure.

Controls act several frames after they were asked for, and only a frame's own metadata says when. Frames in between
are flagged, so that nobody judges night by them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import fmean, median

from capture.sources.base import CameraRequest, ShotMeta

LATE = 1.5
"""A gap of more than this many frame durations means frames are missing (RMS and design.md 7 use the same)."""

HISTORY = 63
"""Gaps from which the frame duration is estimated where the camera does not tell it."""

MIN_HISTORY = 5


@dataclass
class DropCounter:
    """Feed it every frame, in order."""

    total: int = field(default=0, init=False)
    """Frames lost so far."""
    _last_ns: int = field(default=0, init=False)
    _gaps: deque[int] = field(default_factory=lambda: deque(maxlen=HISTORY), init=False)

    def restart(self) -> None:
        """Forget the rhythm: the camera was opened again, paused or changed its mode; the gap now is no loss."""
        self._last_ns = 0
        self._gaps.clear()

    def frame(self, captured_ns: int, frame_duration_us: int = 0, lost_before: int = 0) -> int:
        """Take one frame. Returns: how many are missing before it.

        `frame_duration_us` is this frame's own duration (0 = unknown), so that a 2 s night exposure is no 59 drops.
        `lost_before` is what the device itself counted; it beats the clock where it says more.
        """
        gap, self._last_ns = (captured_ns - self._last_ns if self._last_ns else 0), captured_ns
        period = frame_duration_us * 1000 or self._usual_ns()
        if gap > 0:
            self._gaps.append(gap)
        missing = round(gap / period) - 1 if period and gap > LATE * period else 0
        missing = max(0, missing, lost_before)
        self.total += missing
        return missing

    def _usual_ns(self) -> float:
        """The mean of the gaps that hold one frame; 0 while there are too few. The median alone carries the jitter."""
        if len(self._gaps) < MIN_HISTORY:
            return 0.0
        limit = LATE * median(self._gaps)
        return fmean(gap for gap in self._gaps if gap < limit)


TOLERANCE = 0.10
"""A frame counts as what was asked for within this share of exposure times gain (shared/imaging.md 1.1)."""

STEADY = 0.05
STEADY_FRAMES = 3
"""Auto exposure has arrived when so many frames in a row differ by less than STEADY from the one before."""

BLIND_FRAMES = 10
"""Where frames do not tell their exposure: 6 buffers and 4 frames of pipeline (picamera2 issue 1278)."""

PATIENCE_FRAMES = 90
"""Then the camera will not come nearer (a refused exposure, a flickering lamp), and its frames are as good as any."""


@dataclass
class SettlingFlags:
    """`begin` at every change; `frame` for every frame."""

    _asked: float = field(default=0.0, init=False)
    _frames: int = field(default=0, init=False)
    _steady: int = field(default=0, init=False)
    _last: float = field(default=0.0, init=False)
    _active: bool = field(default=False, init=False)

    def begin(self, request: CameraRequest) -> None:
        """From now on `request` is asked for."""
        exposure_us, gain = fixed_exposure(request)
        self._asked = exposure_us * gain
        self._frames = self._steady = 0
        self._last, self._active = 0.0, True

    def frame(self, shot: ShotMeta) -> bool:
        """Take one frame. Returns: whether it is one of those that are still settling."""
        if not self._active:
            return False
        self._frames += 1
        got = shot.exposure_us * shot.analogue_gain
        if not got:
            arrived = self._frames > BLIND_FRAMES
        elif self._asked:
            arrived = abs(got / self._asked - 1) <= TOLERANCE
        else:
            steady = self._last and abs(got / self._last - 1) < STEADY
            self._steady = self._steady + 1 if steady else 0
            arrived = self._steady >= STEADY_FRAMES
        self._last = got
        self._active = not (arrived or self._frames >= PATIENCE_FRAMES)
        return self._active


def fixed_exposure(request: CameraRequest) -> tuple[float, float]:
    """Exposure in µs and gain that `request` prescribes; 0 where the camera chooses."""
    if request.mode == "still":
        return request.exposure_us, request.gain
    if request.mode == "slow_video":
        return 0, 0
    return float(request.controls.get("ExposureTime", 0)), float(request.controls.get("AnalogueGain", 0))  # type: ignore[arg-type]
