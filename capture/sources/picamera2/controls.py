"""Turns a CameraRequest into libcamera controls, each checked against the range this very camera advertises. Pure.

Ranges are those of Picamera2's `camera_controls`: name → (lowest, highest, default).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capture.sources.base import CameraRequest, ControlValue

Range = tuple[Any, Any, Any]
Ranges = Mapping[str, Range]

LONGER_THAN_EXPOSURE = 1.02
READOUT_US = 2000
"""A frame must last longer than its exposure: the sensor needs some blank lines, libcamera else shortens the exposure
(ipa/rpi helper getBlanking). 2 % and 2 ms cover every sensor's margin, of at most 66 lines of 30 µs."""

FAST, HIGH_QUALITY = 1, 2
"""libcamera draft.NoiseReductionModeEnum, as Picamera2's own video and still configurations choose."""

SYNC_MODES = {"off": 0, "server": 1, "client": 2}
"""Raspberry Pi's SyncModeEnum."""

AUTOMATIC: Mapping[str, ControlValue] = {"AwbEnable": True, "AeEnable": True}
"""The values to send where libcamera advertises no default."""
BELONGING: Mapping[str, str] = {"ColourGains": "AwbEnable", "ColourTemperature": "AwbEnable"}
"""Unsetting one of these means giving the decision back to this automatic."""


def frame_durations_us(request: CameraRequest, lowest: int, highest: int) -> tuple[int, int]:
    """Returns FrameDurationLimits in µs: at `framerate` where exposures allow it, longer where they are longer.

    `lowest` and `highest` are what the sensor mode allows; framerate 0 means as fast as it goes.
    """
    shortest = min(max(lowest, round(1e6 / request.framerate) if request.framerate else lowest), highest)
    if request.mode == "video":
        return shortest, shortest
    longest = round(request.exposure_us * LONGER_THAN_EXPOSURE) + READOUT_US
    return shortest, min(max(shortest, longest), highest)


def controls_for(
    request: CameraRequest, ranges: Ranges, sync_mode: str = "off"
) -> tuple[dict[str, ControlValue], dict[str, str]]:
    """Returns all controls for this request, complete: nothing depends on what was set before.

    Returns: the controls to set, and those that cannot be, with the reason.
    """
    asked: dict[str, ControlValue] = {}
    if "FrameDurationLimits" in ranges:
        asked["FrameDurationLimits"] = frame_durations_us(request, *ranges["FrameDurationLimits"][:2])
    if "NoiseReductionMode" in ranges:
        asked["NoiseReductionMode"] = HIGH_QUALITY if request.mode == "still" else FAST
    if sync_mode != "off":
        asked["SyncMode"] = SYNC_MODES[sync_mode]
    frozen = request.mode == "video" and request.controls.get("AeEnable") is False
    exposing = {} if frozen else {name: 0 for name in ("ExposureTime", "AnalogueGain") if name in ranges}
    asked |= exposing | dict(request.controls)  # 0 gives the decision back to auto exposure
    if request.mode == "still":
        asked.pop("AeEnable", None)
        asked |= {"ExposureTime": request.exposure_us, "AnalogueGain": request.gain}
    if request.mode == "slow_video":
        asked |= exposing
    return _split_by_range(asked, ranges)


def defaults_for(old: CameraRequest, new: CameraRequest, ranges: Ranges) -> dict[str, ControlValue]:
    """Returns the camera's defaults for the controls that `old` set and `new` does not."""
    found: dict[str, ControlValue] = {}
    for unset in set(old.controls) - set(new.controls):
        name = BELONGING.get(unset, unset)
        default = ranges.get(name, (None, None, None))[2]
        value = AUTOMATIC.get(name) if default is None else default
        if value is not None and name not in new.controls:
            found[name] = value
    return found


def _split_by_range(
    asked: Mapping[str, ControlValue], ranges: Ranges
) -> tuple[dict[str, ControlValue], dict[str, str]]:
    good: dict[str, ControlValue] = {}
    refused: dict[str, str] = {}
    for name, value in asked.items():
        if name not in ranges:
            refused[name] = "this camera does not have it"
            continue
        low, high, _ = ranges[name]
        if name in ("ExposureTime", "AnalogueGain") and value:  # 0 = automatic, in no range
            good[name] = min(max(value, low), high)
            if good[name] != value:
                refused[name] = f"{value}: must be {low}..{high}; {good[name]} is used"
        elif value and not is_within(name, value, low, high):
            refused[name] = f"{value}: must be {low}..{high}"
        else:
            good[name] = value
    return good, refused


def is_within(name: str, value: ControlValue, low: Any, high: Any) -> bool:
    """Tells whether a value lies within the range of libcamera: numbers one by one, rectangles in the largest."""
    if name == "ScalerCrop" and isinstance(value, tuple):
        x, y, width, height = value
        return bool(
            x >= high[0] and y >= high[1] and x + width <= high[0] + high[2] and y + height <= high[1] + high[3]
        ) and bool(width >= low[2] and height >= low[3])
    if low is None or high is None or isinstance(low, tuple):
        return True  # AfWindows and the like: libcamera checks rectangles itself
    values = value if isinstance(value, tuple) else (value,)
    return all(low <= one <= high for one in values)
