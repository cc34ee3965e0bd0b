"""Tells which frames show the exposure that was requested; the others are no evidence of anything."""

from __future__ import annotations

import math

from msgspec import Struct

from analyzer.night.exposure_control import ExposureSetting
from analyzer.night.exposure_estimate import ReportedExposure

UNSETTLED_FRAMES = 12
"""Frames to wait for a requested exposure to show (picamera2 needs buffers + 3..4); then all frames count."""
UNSETTLED_S = 30.0
"""Longest wait for capture's own settling flag; a flag that sticks must not blind the analyzer for ever."""
EXPOSURE_TOLERANCE = 0.10
"""A frame within 10 % of the requested exposure shows it; sensors round to lines and gain steps."""
UNKNOWN_SETTLE_FRAMES = 4
"""Frames to skip where the camera does not tell its exposure and capture does not flag."""


class FrameInfo(Struct, frozen=True):
    """The facts about a frame beside its pixels."""

    captured_ns: int
    reported: ReportedExposure
    is_settling: bool = False
    """The controls of capture are still moving."""
    is_night: bool = False
    """Capture is in night mode."""


class ExposureSettling:
    """The exposure that was requested last, and whether frames show it yet."""

    def __init__(self) -> None:
        self.exposure: ExposureSetting | None = None
        """The requested one; None: video mode, the camera's auto exposure."""
        self._frames = 0
        self._flagged_since_ns: int | None = None

    def begin(self, exposure: ExposureSetting | None) -> None:
        """Notes what was just requested of the camera."""
        self.exposure, self._frames = exposure, 0

    def counts(self, info: FrameInfo) -> bool:
        """Takes the next frame. Returns: whether it counts."""
        self._frames += 1
        if info.is_settling:
            self._flagged_since_ns = self._flagged_since_ns or info.captured_ns
            return info.captured_ns - self._flagged_since_ns > UNSETTLED_S * 1e9
        self._flagged_since_ns = None
        if self.exposure is None or self._frames > UNSETTLED_FRAMES:
            return True
        if math.isnan(info.reported.product_s):
            return self._frames > UNKNOWN_SETTLE_FRAMES
        return is_shown(info.reported.product_s, self.exposure)

    def refuses(self, exposure: ExposureSetting, info: FrameInfo) -> bool:
        """Tells whether the camera did not follow the last request for this exposure; it will not follow the next."""
        last = self.exposure
        if last is None or math.isnan(info.reported.product_s) or self._frames <= UNSETTLED_FRAMES:
            return False
        return not is_shown(info.reported.product_s, last) and is_shown(last.product_s, exposure)


def is_shown(product_s: float, exposure: ExposureSetting) -> bool:
    """Tells whether an exposure product is the requested one, near enough."""
    return abs(product_s / exposure.product_s - 1.0) <= EXPOSURE_TOLERANCE
