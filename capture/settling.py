"""Tells which frames were taken while controls had not settled yet. Pure.

Controls act several frames after they were asked for, and only a frame's own metadata says when. Frames in between
are flagged, so that nobody judges night by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from capture.source import Request, Shot

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
class Settling:
    """`begin` at every change; `frame` for every frame."""

    _asked: float = field(default=0.0, init=False)
    _frames: int = field(default=0, init=False)
    _steady: int = field(default=0, init=False)
    _last: float = field(default=0.0, init=False)
    _active: bool = field(default=False, init=False)

    def begin(self, request: Request) -> None:
        """From now on `request` is asked for."""
        exposure_us, gain = fixed_exposure(request)
        self._asked = exposure_us * gain
        self._frames = self._steady = 0
        self._last, self._active = 0.0, True

    def frame(self, shot: Shot) -> bool:
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


def fixed_exposure(request: Request) -> tuple[float, float]:
    """Exposure in µs and gain that `request` prescribes; 0 where the camera chooses."""
    if request.mode == "still":
        return request.exposure_us, request.gain
    if request.mode == "slow_video":
        return 0, 0
    return float(request.controls.get("ExposureTime", 0)), float(request.controls.get("AnalogueGain", 0))  # type: ignore[arg-type]
