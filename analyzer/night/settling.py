"""Which frames show the exposure that was asked for; the others are not evidence of anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

from analyzer.night.exposure_control import ExposureSetting
from analyzer.night.exposure_estimate import Gathered

UNSETTLED_FRAMES = 12
"""Wait so many frames for a commanded exposure to show (picamera2 needs buffers + 3..4); then take what there is."""
UNSETTLED_S = 30.0
"""And so long for capture's own settling flag; a flag that sticks must not blind us for ever."""
EXPOSURE_TOLERANCE = 0.10
"""A frame within 10 % of the commanded exposure shows it; sensors round to lines and gain steps."""
UNKNOWN_SETTLE_FRAMES = 4
"""Frames to skip where the camera does not tell its exposure and capture does not flag."""


@dataclass(frozen=True, slots=True)
class FrameExposure:
    """What is needed to know of a frame beside its pixels."""

    captured_ns: int
    own: Gathered
    settling: bool = False
    """Capture says its controls are still moving."""
    night: bool = False
    """Capture says it is in night mode."""


class ExposureSettling:
    """The exposure last asked for, and whether frames show it yet."""

    def __init__(self) -> None:
        self.commanded: ExposureSetting | None = None
        """None: video mode, the camera's auto exposure."""
        self._frames = 0
        self._flagged_since_ns: int | None = None

    def command(self, exposure: ExposureSetting | None) -> None:
        """Remember what the camera was just asked for."""
        self.commanded, self._frames = exposure, 0

    def passed(self, shot: FrameExposure) -> bool:
        """Whether the next frame counts."""
        self._frames += 1
        if shot.settling:
            self._flagged_since_ns = self._flagged_since_ns or shot.captured_ns
            return shot.captured_ns - self._flagged_since_ns > UNSETTLED_S * 1e9
        self._flagged_since_ns = None
        if self.commanded is None or self._frames > UNSETTLED_FRAMES:
            return True
        if math.isnan(shot.own.product_s):
            return self._frames > UNKNOWN_SETTLE_FRAMES
        return shows(shot.own.product_s, self.commanded)

    def refuses(self, rung: ExposureSetting, shot: FrameExposure) -> bool:
        """A camera that did not follow the last command to this rung will not follow the next one either."""
        last = self.commanded
        if last is None or math.isnan(shot.own.product_s) or self._frames <= UNSETTLED_FRAMES:
            return False
        return not shows(shot.own.product_s, last) and shows(last.product_s, rung)


def shows(product_s: float, exposure: ExposureSetting) -> bool:
    """Whether an exposure product is the commanded one, near enough."""
    return abs(product_s / exposure.product_s - 1.0) <= EXPOSURE_TOLERANCE
