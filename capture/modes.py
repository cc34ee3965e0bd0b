"""Turns settings and the analyzer's wishes into what is asked of the camera, and says what changed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields

from capture.control_settings import ControlSettings
from capture.settings import CameraSettings, RingSettings
from capture.source import ControlValue, ModeName, Request

SLOW_EVERY = 2
"""Under memory pressure only every so many-th frame is taken."""


@dataclass(frozen=True, slots=True)
class Mode:
    """How the camera exposes."""

    name: ModeName = "video"
    exposure_us: int = 0
    gain: float = 0.0


VIDEO = Mode()


def first_mode(camera: CameraSettings) -> Mode:
    """The mode a camera starts in."""
    return VIDEO if camera.video_mode else Mode("still", camera.exposure_us, camera.gain)


def requested_mode(name: str, exposure_us: int, gain: float, camera: CameraSettings) -> Mode:
    """The mode another process asked for; 0 means as configured. Raises: ValueError for an unknown name."""
    if name == "video":
        return VIDEO
    if name == "still":
        return Mode("still", exposure_us or camera.exposure_us, gain or camera.gain)
    if name == "slow_video":
        return Mode("slow_video", exposure_us or camera.exposure_us, gain)
    raise ValueError(f"mode {name!r}: must be video, still or slow_video")


def request(camera: CameraSettings, ring: RingSettings, mode: Mode, *, slow: bool = False) -> Request:
    """What to ask of the source."""
    width, height = camera.size
    small = ring.downscale
    return Request(
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


def chosen(controls: ControlSettings) -> dict[str, ControlValue]:
    """The controls the user set, by libcamera's names."""
    every = {name: getattr(controls, name) for name in controls.__struct_fields__}
    return {name: value for name, value in every.items() if value is not None}


def changes(old: Request, new: Request) -> dict[str, tuple[object, object]]:
    """Which fields differ, controls one by one: name → (old, new); None where a control was not set."""
    found: dict[str, tuple[object, object]] = {}
    for field in fields(Request):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name == "controls":
            names = sorted(set(before) | set(after))
            pairs = {name: (before.get(name), after.get(name)) for name in names}
            found.update({name: pair for name, pair in pairs.items() if pair[0] != pair[1]})
        elif before != after:
            found[field.name] = (before, after)
    return found


def needs_reopening(old: Request, new: Request) -> bool:
    """Whether the camera must be closed and opened for the change: its buffers would be of another size or format."""
    return (old.width, old.height, old.codec, old.lores) != (new.width, new.height, new.codec, new.lores)


def period_s(request: Request, framerate: float = 0.0) -> float:
    """The longest a frame may normally take, in seconds (auto exposure may use all of it)."""
    rate = request.framerate or framerate or 30.0
    return max(1 / rate, request.exposure_us / 1e6)
