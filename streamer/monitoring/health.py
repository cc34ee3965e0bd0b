"""Is the service ready, and if not, why: decided from facts, without I/O. The answer of `/healthz`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shmcam.library.room import is_low


class CameraHealth(msgspec.Struct, frozen=True):
    """One camera, as far as the streamer sees it."""

    live: bool
    """Fresh pictures come."""
    age_s: float | None
    """Age of the newest frame, seconds; null: there never was one."""
    frame_id: int
    """Newest frame; -1: none."""
    fps: float
    """Frames a second."""


class DiskHealth(msgspec.Struct, frozen=True):
    """The disk recordings go to."""

    path: str
    free_bytes: int
    total_bytes: int
    reserve_bytes: int
    """What retention keeps free, by deleting the oldest files: a disk that is full up to here is as it should be."""

    @property
    def low(self) -> bool:
        """Whether somebody else takes the room."""
        return self.total_bytes > 0 and is_low(self.free_bytes, self.reserve_bytes)


class ProcessHealth(msgspec.Struct, frozen=True):
    """One process, as the hub knows it."""

    program: str
    """supervisord's name, such as recorder-cam1."""
    camera: str
    pid: int
    state: str
    reason: str
    """Why it is not simply running."""
    fps: float
    """Frames a second; -1: does not handle frames."""
    lag: int
    """Frames behind the writer; -1: reads none."""
    laps: int
    """Frames lost because the writer came round."""
    rss_bytes: int
    swap_bytes: int
    figures: dict[str, Any]
    """Whatever else it counts."""

    def figure(self, name: str) -> float:
        """One of `figures`; 0 where it is missing or no finite number: others write them."""
        try:
            value = float(self.figures.get(name, 0.0))
        except (TypeError, ValueError, OverflowError):
            return 0.0
        return value if math.isfinite(value) else 0.0


class Health(msgspec.Struct, frozen=True):
    """Ready or not, with reasons."""

    ready: bool
    reasons: list[str]
    """Empty when ready."""
    time_utc: str
    """Now, ISO 8601."""
    uptime_s: float
    """Of the streamer."""
    cameras: dict[str, CameraHealth]
    disk: DiskHealth
    hub: bool
    """The hub answers."""
    processes: list[ProcessHealth]
    """Empty while the hub does not answer."""


def reasons(
    cameras: Mapping[str, CameraHealth], disk: DiskHealth, *, hub: bool, processes: Sequence[ProcessHealth]
) -> list[str]:
    """Say what keeps the service from being ready; empty: nothing."""
    found = [_camera_reason(name, camera) for name, camera in cameras.items() if not camera.live]
    if disk.low:
        found.append(f"disk {disk.path}: {disk.free_bytes // 1_000_000} MB free")
    if not hub:
        found.append("hub: does not answer (supervisorctl start hub)")
    found += [
        f"{one.program}: {one.state}{f', {one.reason}' if one.reason else ''}"
        for one in processes
        if _bad(one) or _held_up(one, cameras)
    ]
    return found


def _camera_reason(name: str, camera: CameraHealth) -> str:
    if camera.age_s is None:
        return f"{name}: no picture yet"
    return f"{name}: last picture {camera.age_s:.1f} s ago"


def _bad(process: ProcessHealth) -> bool:
    return process.state in {"silent", "missing", "FATAL", "EXITED", "BACKOFF", "down"}


def _held_up(process: ProcessHealth, cameras: Mapping[str, CameraHealth]) -> bool:
    """It would work but cannot, as a recorder without room; without their camera all wait, which is said already."""
    camera = cameras.get(process.camera)
    return process.state == "waiting" and bool(process.reason) and (camera is None or camera.live)
