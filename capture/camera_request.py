"""What settings, the analyzer and memory pressure ask of the camera at this moment. No I/O.

Turns settings and the analyzer's wishes into what is asked of the camera, and says what changed. Pure.

What memory is left to this machine and to this process, and what capture does about it. Decisions are pure.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path

from capture.settings import CameraControlSettings, CameraSettings, PrivacySettings, RingSettings
from capture.sources.base import CameraRequest, ControlValue, ModeName
from shmcam.config.settings import Settings, apply_change
from shmcam.control.messages import Event, ModeRequested, NightBegan, NightEnded, SettingChanged

SLOW_EVERY = 2
"""Under memory pressure only every so many-th frame is taken."""


@dataclass(frozen=True, slots=True)
class ExposureMode:
    """How the camera exposes."""

    name: ModeName = "video"
    exposure_us: int = 0
    gain: float = 0.0


VIDEO = ExposureMode()


def first_mode(camera: CameraSettings) -> ExposureMode:
    """The mode a camera starts in."""
    return VIDEO if camera.video_mode else ExposureMode("still", camera.exposure_us, camera.gain)


def requested_mode(name: str, exposure_us: int, gain: float, camera: CameraSettings) -> ExposureMode:
    """The mode another process asked for; 0 means as configured. Raises: ValueError for an unknown name."""
    if name == "video":
        return VIDEO
    if name == "still":
        return ExposureMode("still", exposure_us or camera.exposure_us, gain or camera.gain)
    if name == "slow_video":
        return ExposureMode("slow_video", exposure_us or camera.exposure_us, gain)
    raise ValueError(f"mode {name!r}: must be video, still or slow_video")


def request(camera: CameraSettings, ring: RingSettings, mode: ExposureMode, *, slow: bool = False) -> CameraRequest:
    """What to ask of the source."""
    width, height = camera.size
    small = ring.downscale
    return CameraRequest(
        width=width,
        height=height,
        framerate=(camera.framerate or 30.0) / SLOW_EVERY if slow else camera.framerate,
        codec=camera.codec,
        mode=mode.name,
        exposure_us=mode.exposure_us,
        gain=mode.gain,
        lores=(small.width, small.height) if small.enable else None,
        controls=chosen(camera.controls),
        every=SLOW_EVERY if slow else 1,
    )


def chosen(controls: CameraControlSettings) -> dict[str, ControlValue]:
    """The controls the user set, by libcamera's names."""
    every = {name: getattr(controls, name) for name in controls.__struct_fields__}
    return {name: value for name, value in every.items() if value is not None}


def changes(old: CameraRequest, new: CameraRequest) -> dict[str, tuple[object, object]]:
    """Which fields differ, controls one by one: name → (old, new); None where a control was not set."""
    found: dict[str, tuple[object, object]] = {}
    for field in fields(CameraRequest):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name == "controls":
            names = sorted(set(before) | set(after))
            pairs = {name: (before.get(name), after.get(name)) for name in names}
            found.update({name: pair for name, pair in pairs.items() if pair[0] != pair[1]})
        elif before != after:
            found[field.name] = (before, after)
    return found


def needs_reopening(old: CameraRequest, new: CameraRequest) -> bool:
    """Whether the camera must be closed and opened for the change: its buffers would be of another size or format."""
    return (old.width, old.height, old.codec, old.lores) != (new.width, new.height, new.codec, new.lores)


def period_s(request: CameraRequest, framerate: float = 0.0) -> float:
    """The longest a frame may normally take, in seconds (auto exposure may use all of it)."""
    rate = request.framerate or framerate or 30.0
    return max(1 / rate, request.exposure_us / 1e6)


EXIT_MEMORY = 42
"""Not among supervisord.conf's exitcodes, so the process comes back, with its memory given back."""

MARGIN_PERCENT = 5.0
"""Swap must fall this far below a limit before the limit's effect ends, so that it does not flap."""

MEMINFO = Path("/proc/meminfo")


class Pressure(Enum):
    """What swap in use does to capture."""

    NONE = "none"
    SLOW = "slow"
    PAUSE = "pause"


def decide(swap_percent: float, before: Pressure, camera: CameraSettings) -> Pressure:
    """The state that follows from `swap_percent`, with hysteresis."""
    order = [Pressure.NONE, Pressure.SLOW, Pressure.PAUSE]
    limits = [0.0, camera.swap_slow_percent, camera.swap_pause_percent]
    level = max(i for i in range(3) if i == 0 or swap_percent >= limits[i])
    held = max(i for i in range(3) if i == 0 or swap_percent >= limits[i] - MARGIN_PERCENT)
    return order[max(level, min(held, order.index(before)))]


def swap_percent(meminfo: Path | None = None) -> float:
    """Swap in use, 0..100; 0 where there is none."""
    found = _kilobytes(meminfo or MEMINFO)
    total = found.get("SwapTotal", 0)
    return 100 * (total - found.get("SwapFree", 0)) / total if total else 0.0


def _kilobytes(file: Path) -> dict[str, int]:
    """The `Name:  123 kB` lines of a proc file."""
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}


EVENTS = ("mode_requested", "night_began", "night_ended")
"""What capture subscribes to; settings come unasked."""

log = logging.getLogger(__name__)


class DesiredRequest:
    """Fed with messages; `request` is always what should be running."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self.pressure = Pressure.NONE
        self.night = False
        """What the analyzer last said; frames carry it as a flag."""
        self._read()
        self.mode: ExposureMode = first_mode(self.camera)
        self.request = self._request()
        """What to ask of the source; a new object when, and only when, something was asked."""

    def press(self, pressure: Pressure) -> None:
        """Take over what memory allows."""
        self.pressure = pressure
        self.request = self._request()

    def hear(self, message: Event) -> None:
        """Take one event; those about other cameras are ignored."""
        if getattr(message, "camera", "") not in ("", self._name):
            return
        match message:
            case SettingChanged():
                self._change(message)
            case ModeRequested():
                self._obey(message)
            case NightEnded():  # a kind of NightBegan, so it comes first
                self.night = False
            case NightBegan():
                self.night = True
        self.request = self._request()

    def _change(self, message: SettingChanged) -> None:
        before = self.camera
        self._settings = apply_change(self._settings, message.key, message.new, message.camera)
        self._read()
        own = ("video_mode", "exposure_us", "gain")
        if not self.night and any(getattr(before, name) != getattr(self.camera, name) for name in own):
            self.mode = first_mode(self.camera)  # at night the analyzer has the camera; the day's mode waits

    def _obey(self, message: ModeRequested) -> None:
        try:
            asked = requested_mode(message.mode, message.exposure_us, message.gain, self.camera)
        except ValueError as error:
            log.warning("%s", error)
            return
        self.night = asked != VIDEO
        self.mode = asked if self.night else first_mode(self.camera)
        log.info("mode requested mode=%s reason=%s", message.mode, message.reason)

    def _request(self) -> CameraRequest:
        wanted = request(self.camera, self.ring, self.mode, slow=self.pressure is not Pressure.NONE)
        return self.request if wanted == getattr(self, "request", None) else wanted

    def _read(self) -> None:
        self.camera = self._settings.table(CameraSettings, self._name)
        self.ring = self._settings.table(RingSettings, self._name)
        self.privacy = self._settings.table(PrivacySettings, self._name)
        self.polygons = self.privacy.polygons if self.privacy.enable else ()
        """What to mask; empty: nothing."""
