"""REST: everything the page shows, in one answer, so that it asks once a second and not ten times."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from shm_ring.scores import Score
from streamer.context import Context
from streamer.endpoint import Call, Endpoint
from streamer.health import Health
from streamer.rest_status import CameraStatus, camera_status
from streamer.state import health_of


class Overview(msgspec.Struct, frozen=True):
    """What a page needs every second, in one answer."""

    health: Health
    cameras: list[CameraStatus]
    recordings: dict[str, Recording]
    """By camera."""
    nights: dict[str, NightStatus | None]
    """By camera; null: no analyzer runs, or no picture comes."""
    cpu_percent: float
    viewers: int
    throttle: Throttled
    last_event: int
    """Number of the newest event."""
    login: bool
    """Somebody had to log in, so somebody can log out."""


class Recording(msgspec.Struct, frozen=True):
    """What a camera's recorder does."""

    state: str
    """recording, idle, waiting, live, silent, missing …"""
    file: str
    """Name of the file being written."""
    frames: int
    drops: int
    behind_s: float


class NightStatus(msgspec.Struct, frozen=True):
    """Day or night, with the numbers behind it."""

    night: bool
    level: float
    """On the scale of the thresholds."""
    dark_score: float
    """Plain mean luma, 0..255."""
    dark_threshold: float
    bright_threshold: float
    locked_s: float
    forced: bool
    moving: bool


class Throttled(msgspec.Struct, frozen=True):
    """How much slower viewers are served than they asked for."""

    share: float
    reason: str


async def _overview(call: Call) -> Overview:
    context = call.context
    return Overview(
        health=health_of(context),
        cameras=[camera_status(context, camera) for camera in context.cameras.values()],
        recordings={name: _recording(context, name) for name in context.cameras},
        nights={name: _night(camera.feed.sight.mark) for name, camera in context.cameras.items()},
        cpu_percent=round(context.machine.cpu_percent, 1),
        viewers=len(context.ledger.present),
        throttle=Throttled(context.precedence.share, context.precedence.reason),
        last_event=context.events.latest[-1].number if context.events.latest else 0,
        login=context.guard.needs_login,
    )


def _recording(context: Context, camera: str) -> Recording:
    program = "recorder" if camera == next(iter(context.cameras)) else f"recorder-{camera}"
    one = next((p for p in context.machine.processes if p.program == program), None)
    return Recording(
        state=one.state if one else "missing",
        file=Path(str(one.figures.get("file", ""))).name if one else "",
        frames=int(one.figure("frames")) if one else 0,
        drops=int(one.figure("drops")) if one else 0,
        behind_s=one.figure("behind_s") if one else 0.0,
    )


def _night(mark: Score | None) -> NightStatus | None:
    if mark is None:
        return None
    figures = {
        "level": mark.scene_brightness,
        "dark_score": mark.dark_score,
        "dark_threshold": mark.dark_threshold,
        "bright_threshold": mark.bright_threshold,
        "locked_s": mark.locked_s,
    }
    plain = {name: round(value, 2) if math.isfinite(value) else 0.0 for name, value in figures.items()}
    return NightStatus(night=mark.night, forced=mark.forced, moving=mark.moving, **plain)


def endpoints() -> list[Endpoint]:
    """All of this topic."""
    return [Endpoint("GET", "/overview", "status", "Everything a page shows, in one answer", _overview, Overview)]
