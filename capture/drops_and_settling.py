"""Checks of each frame: frames lost before it, and controls that have not settled yet. Pure.

Lost frames are counted from the gaps between sensor timestamps and from the camera's own frame counter. Controls act
several frames after they were asked for, and only a frame's own metadata says when; frames in between are flagged, so
that night is not decided on them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import fmean, median

from capture.sources.base import CameraRequest, ShotMeta

LATE = 1.5
"""A gap of more than this many frame durations means frames are missing (RMS and design.md 7 use the same)."""

HISTORY = 63
"""Gaps from which the frame duration is estimated where the camera does not tell it."""

MIN_HISTORY = 4
"""Gaps that an estimate needs; so many in a row that agree with one another are a new rate."""

RENEW = 16
"""An estimate of HISTORY gaps that come as it says is renewed with one gap of so many."""

MISSING_MAX = (1 << 32) - 1
"""The ring's field holds no more: a replay may go on years later."""

SAME_RATE = 1.25
"""Gaps within this factor agree: jitter is less, and cameras halve their rate in the dark."""

NEAR_DECLARED = 0.05
"""A measured rate this near to the declared one is the declared one: the rest is jitter."""

HALVES_FROM = 4.0
"""From here on a measured rate is rounded to half a frame a second, below to two digits."""


@dataclass
class DropCounter:
    """Counts lost frames and measures the rate that comes; takes every frame, in order."""

    from_gaps: bool = True
    """False: only what the source itself counts; gaps between frames tell nothing."""
    total: int = field(default=0, init=False)
    """Frames lost so far."""
    _last_ns: int = field(default=0, init=False)
    _gaps: deque[int] = field(default_factory=lambda: deque(maxlen=HISTORY), init=False)
    _noted: int = field(default=0, init=False)
    """Gaps since the counter was made."""
    _period_ns: float | None = field(default=None, init=False)
    """What `period_ns` came to; None: to be computed, as it takes as long as copying a small frame."""

    def restart(self) -> None:
        """Forgets earlier gaps: the camera was opened again, paused or changed its mode; the next gap is no loss."""
        self._last_ns, self._period_ns = 0, None
        self._gaps.clear()

    def count(self, captured_ns: int, frame_duration_us: int = 0, lost_before: int = 0) -> int:
        """Takes one frame. Returns: the number of frames missing before it.

        `frame_duration_us` is this frame's own duration (0 = unknown), so that a 2 s night exposure is no 59 drops.
        `lost_before` is what the device itself counted; it beats the clock where it says more.
        """
        gap, self._last_ns = (captured_ns - self._last_ns if self._last_ns else 0), captured_ns
        if gap > 0 and not frame_duration_us:
            self._add(gap)
        period = frame_duration_us * 1000 or self.period_ns
        missing = round(gap / period) - 1 if self.from_gaps and period and gap > LATE * period else 0
        missing = min(max(0, missing, lost_before), MISSING_MAX)
        self.total += missing
        return missing

    @property
    def is_measured(self) -> bool:
        """True once so many gaps were seen that a larger ring is worth its price."""
        return len(self._gaps) == HISTORY

    @property
    def period_ns(self) -> float:
        """The mean of the gaps that hold one frame; 0 while there are too few, or where frames tell their duration.

        The median alone carries the jitter.
        """
        if self._period_ns is None:
            limit = LATE * median(self._gaps) if len(self._gaps) >= MIN_HISTORY else 0.0
            usual = [gap for gap in self._gaps if gap < limit]
            self._period_ns = sum(usual) / len(usual) if usual else 0.0
        return self._period_ns

    def _add(self, gap: int) -> None:
        """Notes a gap; gaps that agree with one another, but not with the estimate, begin it anew."""
        typical = self.period_ns
        self._gaps.append(gap)
        self._noted += 1
        is_usual = bool(typical) and _agree(gap, typical)
        if not is_usual or not self.is_measured or not self._noted % RENEW:
            self._period_ns = None
        if not typical or is_usual:
            return
        newest = list(self._gaps)[-MIN_HISTORY:]
        if _agree(max(newest), min(newest)) and not _agree(fmean(newest), typical):
            self._gaps = deque(newest, HISTORY)


def _agree(one: float, other: float) -> bool:
    return max(one, other) < SAME_RATE * min(one, other)


@lru_cache(maxsize=8)  # the same for many frames
def nominal_duration_us(period_ns: float, declared_us: int) -> int:
    """Returns the distance to the next frame by the rate that comes, 0: not known; then what the stream declares."""
    rate = nominal_rate(1e9 / period_ns if period_ns else 0.0, 1e6 / declared_us if declared_us else 0.0)
    return round(1e6 / rate) if rate else 0


def nominal_rate(measured: float, declared: float) -> float:
    """Returns the rate that a stream has by name: the declared one if it is true, else the measured one, rounded.

    Frames a second; `measured` 0: not known yet.
    """
    if not measured or (declared and abs(measured / declared - 1) < NEAR_DECLARED):
        return declared
    return round(2 * measured) / 2 if measured >= HALVES_FROM else float(f"{measured:.2g}")


TOLERANCE = 0.10
"""A frame counts as what was asked for within this share of exposure times gain."""

STEADY = 0.05
STEADY_FRAMES = 3
"""Auto exposure has arrived when so many frames in a row differ by less than STEADY from the one before."""

BLIND_FRAMES = 10
"""For frames without their exposure: 6 buffers and 4 frames of pipeline (picamera2 issue 1278)."""

PATIENCE_FRAMES = 90
"""Then the camera will not come nearer (a refused exposure, a flickering lamp), and its frames are as good as any."""


@dataclass
class SettlingFlags:
    """Flags frames that show controls on the move: `begin` at every change, `update` for every frame."""

    _asked: float = field(default=0.0, init=False)
    _frames: int = field(default=0, init=False)
    _steady: int = field(default=0, init=False)
    _last: float = field(default=0.0, init=False)
    _active: bool = field(default=False, init=False)

    def begin(self, request: CameraRequest) -> None:
        """Notes that `request` is asked for from now on."""
        exposure_us, gain = fixed_exposure(request)
        self._asked = exposure_us * gain
        self._frames = self._steady = 0
        self._last, self._active = 0.0, True

    def update(self, shot: ShotMeta) -> bool:
        """Takes one frame. Returns: True while controls are still settling."""
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
