"""The request to the camera that follows from settings, the analyzer and memory pressure.

All decisions are pure; only swap and memory are read from /proc.
"""

from __future__ import annotations

import logging
from enum import Enum
from pathlib import Path

from msgspec import Struct
from msgspec.structs import fields

from capture.settings import CameraControlSettings, CameraSettings, PrivacySettings, RingSettings
from capture.sources.base import CameraRequest, ControlValue, ModeName
from shmcam.config.settings import Settings, apply_change
from shmcam.control.messages import Event, ModeRequested, NightBegan, NightEnded, SettingChanged

SLOW_EVERY = 2
"""Under memory pressure one frame of so many is taken."""


class ExposureMode(Struct, frozen=True):
    """The way in which the camera exposes."""

    name: ModeName = "video"
    exposure_us: int = 0
    gain: float = 0.0


VIDEO = ExposureMode()


def initial_mode(camera: CameraSettings) -> ExposureMode:
    """Returns the mode in which a camera starts."""
    return VIDEO if camera.video_mode else ExposureMode("still", camera.exposure_us, camera.gain)


def mode_of(name: str, exposure_us: int, gain: float, camera: CameraSettings) -> ExposureMode:
    """Returns the mode that another process asked for; 0 means as configured.

    Raises: ValueError for an unknown name.
    """
    if name == "video":
        return VIDEO
    if name == "still":
        return ExposureMode("still", exposure_us or camera.exposure_us, gain or camera.gain)
    if name == "slow_video":
        return ExposureMode("slow_video", exposure_us or camera.exposure_us, gain)
    raise ValueError(f"mode {name!r}: must be video, still or slow_video")


def request_of(camera: CameraSettings, ring: RingSettings, mode: ExposureMode, *, slow: bool = False) -> CameraRequest:
    """Returns the request that follows from one camera's settings and mode."""
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
        controls=controls_of(camera.controls),
        every=SLOW_EVERY if slow else 1,
    )


def controls_of(controls: CameraControlSettings) -> dict[str, ControlValue]:
    """Returns the controls that the user set, by libcamera's names."""
    every = {name: getattr(controls, name) for name in controls.__struct_fields__}
    return {name: value for name, value in every.items() if value is not None}


def find_changes(old: CameraRequest, new: CameraRequest) -> dict[str, tuple[object, object]]:
    """Returns the fields that differ, controls one by one: name → (old, new); None where a control was not set."""
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
    """Tells if the camera must be closed and opened for the change: its buffers would have another size or format."""
    return (old.width, old.height, old.codec, old.lores) != (new.width, new.height, new.codec, new.lores)


def period_s_of(request: CameraRequest, framerate: float = 0.0) -> float:
    """Returns the longest time a frame may normally take, in seconds (auto exposure may use all of it)."""
    rate = min((rate for rate in (request.framerate, framerate) if rate), default=30.0)
    return max(1 / rate, request.exposure_us / 1e6)


EXIT_MEMORY = 42
"""Not among supervisord.conf's exitcodes, so the process comes back, with its memory given back."""

MARGIN_PERCENT = 5.0
"""Swap must fall this far below a limit before the limit's effect ends, so that it does not flap."""

MEMINFO = Path("/proc/meminfo")


class Pressure(Enum):
    """The effect of used swap on capture."""

    NONE = "none"
    SLOW = "slow"
    PAUSE = "pause"


def decide_pressure(swap_percent: float, before: Pressure, camera: CameraSettings) -> Pressure:
    """Returns the state that follows from `swap_percent`, with hysteresis."""
    order = [Pressure.NONE, Pressure.SLOW, Pressure.PAUSE]
    limits = [0.0, camera.swap_slow_percent, camera.swap_pause_percent]
    level = max(i for i in range(3) if i == 0 or swap_percent >= limits[i])
    held = max(i for i in range(3) if i == 0 or swap_percent >= limits[i] - MARGIN_PERCENT)
    return order[max(level, min(held, order.index(before)))]


def read_swap_percent(meminfo: Path | None = None) -> float:
    """Returns the share of swap in use, 0..100; 0 where there is none."""
    found = _kilobytes(meminfo or MEMINFO)
    total = found.get("SwapTotal", 0)
    return 100 * (total - found.get("SwapFree", 0)) / total if total else 0.0


def _kilobytes(file: Path) -> dict[str, int]:
    """Reads the `Name:  123 kB` lines of a proc file."""
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}


EVENTS = ("mode_requested", "night_began", "night_ended")
"""The events that capture subscribes to; changed settings come without."""

log = logging.getLogger(__name__)


class DesiredRequest:
    """Takes events; `request` is always the one that should be running."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self.pressure = Pressure.NONE
        self.night = False
        """The last word of the analyzer; frames carry it as a flag."""
        self._read()
        self.mode: ExposureMode = initial_mode(self.camera)
        self.request = self._request()
        """The request for the source; a new object when, and only when, something in it changed."""

    def set_pressure(self, pressure: Pressure) -> None:
        """Sets how much memory pressure there is."""
        self.pressure = pressure
        self.request = self._request()

    def take_event(self, message: Event) -> None:
        """Takes one event; those about other cameras are ignored."""
        if getattr(message, "camera", "") not in ("", self._name):
            return
        match message:
            case SettingChanged():
                self._change(message)
            case ModeRequested():
                self._apply_mode(message)
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
            self.mode = initial_mode(self.camera)  # at night the analyzer has the camera; the day's mode waits

    def _apply_mode(self, message: ModeRequested) -> None:
        try:
            asked = mode_of(message.mode, message.exposure_us, message.gain, self.camera)
        except ValueError as error:
            log.warning("%s", error)
            return
        self.night = asked != VIDEO
        self.mode = asked if self.night else initial_mode(self.camera)
        log.info("mode requested mode=%s reason=%s", message.mode, message.reason)

    def _request(self) -> CameraRequest:
        wanted = request_of(self.camera, self.ring, self.mode, slow=self.pressure is not Pressure.NONE)
        return self.request if wanted == getattr(self, "request", None) else wanted

    def _read(self) -> None:
        self.camera = self._settings.table(CameraSettings, self._name)
        self.ring = self._settings.table(RingSettings, self._name)
        self.privacy = self._settings.table(PrivacySettings, self._name)
        self.polygons = self.privacy.polygons if self.privacy.enable else ()
        """The areas to mask; empty: none."""
