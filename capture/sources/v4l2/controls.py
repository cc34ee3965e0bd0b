"""A webcam's controls by libcamera's names: exposure, gain, brightness and their like, set and read back by ioctl.

Source: Linux' include/uapi/linux/v4l2-controls.h and the UVC driver. A second descriptor may set controls while FFmpeg
streams from the first.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from msgspec import Struct

from capture.sources.base import CameraRequest, ControlValue
from capture.sources.v4l2.device import Ioctl

QUERYCTRL, G_CTRL, S_CTRL = 0xC0445624, 0xC008561B, 0xC008561C
QUERY = struct.Struct("=II32siiiiI8x")
CONTROL = struct.Struct("=Ii")

DISABLED = 0x0001
"""V4L2_CTRL_FLAG_DISABLED."""

EXPOSURE_AUTO, EXPOSURE_ABSOLUTE, GAIN = 0x009A0901, 0x009A0902, 0x00980913
EXPOSURE_UNIT_US = 100
"""EXPOSURE_ABSOLUTE counts 100 µs (control.rst)."""
MOST_GAIN = 16.0
"""The value assumed for a webcam's highest gain; a Pi camera's is between 8 and 22."""
MANUAL, APERTURE_PRIORITY = 1, 3
"""V4L2_EXPOSURE_MANUAL, and what UVC webcams call automatic."""

AROUND_ZERO = {"Brightness": 0x00980900}
"""libcamera -1..1, 0 as it comes → lowest, default, highest."""
AROUND_ONE = {"Contrast": 0x00980901, "Saturation": 0x00980902, "Sharpness": 0x0098091B}
"""libcamera 0..1..2 → lowest, default, highest."""
SWITCHES = {"AwbEnable": 0x0098090C}
OFFERED = {*AROUND_ZERO, *AROUND_ONE, *SWITCHES, "AeEnable", "ExposureTime", "AnalogueGain"}


class Range(Struct, frozen=True):
    """The range that a device allows for one control."""

    lowest: int
    highest: int
    default: int

    def clip(self, value: float) -> int:
        """Returns the nearest allowed value."""
        return min(max(round(value), self.lowest), self.highest)

    def scale_around(self, value: float, centre: float) -> int:
        """Scales a value: `centre` means the default, one less the lowest, one more the highest."""
        side = self.highest if value >= centre else self.lowest
        return self.clip(self.default + abs(value - centre) * (side - self.default))

    def from_gain(self, gain: float) -> int:
        """Converts a gain: webcams' gain has no unit, so 1 is the lowest, MOST_GAIN the highest."""
        return self.clip(self.lowest + (gain - 1) * (self.highest - self.lowest) / (MOST_GAIN - 1))


def values_for(request: CameraRequest, known: Mapping[int, Range]) -> tuple[dict[int, int], dict[str, str]]:
    """Returns the values to set on a device with the controls `known`. Pure.

    Returns: control ids to values, in the order in which they must be set, and what was refused with the reason.
    """
    asked: dict[str, ControlValue] = dict(request.controls)
    if request.mode == "still":
        asked |= {"ExposureTime": request.exposure_us, "AnalogueGain": request.gain}
    refused = {name: "not offered by V4L2" for name in asked if name not in OFFERED}
    values: dict[int, int] = {}
    exposure_us = _number(asked, "ExposureTime")
    if EXPOSURE_AUTO in known:
        manual = exposure_us > 0 or not asked.get("AeEnable", True)
        values[EXPOSURE_AUTO] = known[EXPOSURE_AUTO].clip(MANUAL if manual else APERTURE_PRIORITY)
    for name, (code, number) in _settings_of(asked).items():
        if code in known:
            values[code] = number(known[code])
        else:
            refused[name] = "this device has no such control"
    return values, refused


def _settings_of(asked: Mapping[str, ControlValue]) -> dict[str, tuple[int, Callable[[Range], int]]]:
    """The controls asked for: their id, and the number they come to within a device's range."""
    found: dict[str, tuple[int, Callable[[Range], int]]] = {}
    if exposure_us := _number(asked, "ExposureTime"):
        found["ExposureTime"] = EXPOSURE_ABSOLUTE, lambda span: span.clip(exposure_us / EXPOSURE_UNIT_US)
    if gain := _number(asked, "AnalogueGain"):
        found["AnalogueGain"] = GAIN, lambda span: span.from_gain(gain)
    for codes, centre in ((AROUND_ZERO, 0.0), (AROUND_ONE, 1.0)):
        for name in codes.keys() & asked.keys():
            found[name] = codes[name], partial(Range.scale_around, value=_number(asked, name), centre=centre)
    for name in SWITCHES.keys() & asked.keys():
        found[name] = SWITCHES[name], partial(Range.clip, value=_number(asked, name))
    return found


@dataclass
class V4l2Controls:
    """The controls of one device node, opened for as long as the camera is."""

    path: str
    ioctl: Ioctl = fcntl.ioctl
    _descriptor: int = field(default=-1, init=False)
    _known: dict[int, Range] = field(default_factory=dict, init=False)

    def open(self) -> None:
        """Opens the node and asks what it offers. Raises: OSError."""
        self.close()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        codes = [
            EXPOSURE_AUTO,
            EXPOSURE_ABSOLUTE,
            GAIN,
            *AROUND_ZERO.values(),
            *AROUND_ONE.values(),
            *SWITCHES.values(),
        ]
        asked = {code: self._range(code) for code in codes}
        self._known = {code: span for code, span in asked.items() if span is not None}

    def apply(self, request: CameraRequest) -> dict[str, str]:
        """Sets what `request` asks for. Returns: what the device refused, with the reason."""
        values, refused = values_for(request, self._known)
        for code, value in values.items():
            try:
                self.ioctl(self._descriptor, S_CTRL, bytearray(CONTROL.pack(code, value)))
            except OSError as error:
                refused[f"control {code:#x}"] = str(error)
        return refused

    def exposure_us(self) -> int:
        """The exposure the device says it uses; 0 = it does not tell."""
        if EXPOSURE_ABSOLUTE not in self._known:
            return 0
        answer = bytearray(CONTROL.pack(EXPOSURE_ABSOLUTE, 0))
        try:
            self.ioctl(self._descriptor, G_CTRL, answer)
        except OSError:
            return 0
        return int(CONTROL.unpack(answer)[1]) * EXPOSURE_UNIT_US

    def close(self) -> None:
        """Closes the node."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _range(self, code: int) -> Range | None:
        question = bytearray(QUERY.size)
        struct.pack_into("=I", question, 0, code)
        try:
            self.ioctl(self._descriptor, QUERYCTRL, question)
        except OSError:
            return None
        _, _, _, lowest, highest, _, default, flags = QUERY.unpack(question)
        return None if flags & DISABLED else Range(lowest, highest, default)


def _number(asked: Mapping[str, ControlValue], name: str) -> float:
    value = asked.get(name, 0)
    return 0.0 if isinstance(value, tuple) else value
