"""The answer of `/healthz`: ready, or not ready with reasons. Decides from facts, without I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shmcam.config.optional_program import optional_programs
from shmcam.library.disks.disk_space import DiskRoom


class CameraHealth(msgspec.Struct, frozen=True):
    """One camera as the streamer sees it."""

    live: bool
    """Fresh pictures come."""
    age_s: float | None
    """Age of the newest frame, seconds; null: none has come yet."""
    frame_id: int
    """Newest frame; -1: none."""
    fps: float
    """Frames per second."""


class DiskHealth(msgspec.Struct, frozen=True):
    """The disk of the recordings."""

    path: str
    free_bytes: int
    total_bytes: int
    reserve_bytes: int
    """Kept free by retention, which deletes the oldest files: a disk that is full up to here is as it should be."""

    free_files: int = 0
    total_files: int = 0
    """Inodes; 0: this file system has no fixed number."""
    problem: str = ""
    """The reason why it could not be measured; empty: it could."""


class ProcessHealth(msgspec.Struct, frozen=True):
    """One process as the hub sees it."""

    program: str
    """supervisord's name, such as recorder-cam1."""
    camera: str
    pid: int
    state: str
    reason: str
    """The reason for a state other than running."""
    fps: float
    """Frames per second; -1: does not handle frames."""
    lag: int
    """Frames behind the writer; -1: reads none."""
    laps: int
    """Frames lost because the writer came round."""
    rss_bytes: int
    swap_bytes: int
    figures: dict[str, Any]
    """Its other counts, by name."""

    def get_figure(self, name: str) -> float:
        """Returns one of `figures`; 0 where it is missing or not a finite number, as other processes write them."""
        try:
            value = float(self.figures.get(name, 0.0))
        except (TypeError, ValueError, OverflowError):
            return 0.0
        return value if math.isfinite(value) else 0.0


class Health(msgspec.Struct, frozen=True):
    """The readiness of the service, with reasons."""

    ready: bool
    reasons: list[str]
    """Empty when ready."""
    time_utc: str
    """Now, ISO 8601."""
    uptime_s: float
    """Of the streamer, seconds."""
    cameras: dict[str, CameraHealth]
    disk: DiskHealth
    hub: bool
    """The hub answers."""
    processes: list[ProcessHealth]
    """Empty while the hub does not answer."""


def find_reasons(
    cameras: Mapping[str, CameraHealth], disk: DiskHealth, *, hub: bool, processes: Sequence[ProcessHealth]
) -> list[str]:
    """Returns the reasons why the service is not ready; empty: it is ready."""
    said = {process.camera: process.reason for process in processes if process.program.startswith("capture")}
    reasons = [_reason_of(name, camera, said.get(name, "")) for name, camera in cameras.items() if not camera.live]
    room = DiskRoom(disk.free_bytes, disk.total_bytes, disk.reserve_bytes, disk.free_files, disk.total_files)
    if trouble := disk.problem or room.low:
        reasons.append(f"disk {disk.path}: {trouble}")
    if not hub:
        reasons.append("hub: does not answer")
    reasons += [
        f"{process.program}: {process.state}{f', {process.reason}' if process.reason else ''}"
        for process in processes
        if _has_failed(process) or _is_blocked(process, cameras)
    ]
    reasons += [f"{p.program}: {retention}" for p in processes if (retention := p.figures.get("retention"))]
    return reasons


def _reason_of(name: str, camera: CameraHealth, said: str) -> str:
    """Returns the reason for a camera without pictures, with what its capture process says."""
    text = f"{name}: no picture yet" if camera.age_s is None else f"{name}: last picture {camera.age_s:.1f} s ago"
    return f"{text}: {said}" if said else text


def _has_failed(process: ProcessHealth) -> bool:
    return process.state in {"silent", "missing", "FATAL", "EXITED", "BACKOFF", "down"}


def _is_blocked(process: ProcessHealth, cameras: Mapping[str, CameraHealth]) -> bool:
    """True if it waits for anything but its camera, as a recorder for room; a lost camera is a reason of its own.

    Optional programs wait for brokers, stores and servers of others: that is told by their line in status alone.
    """
    if process.program in optional_programs():
        return False
    camera = cameras.get(process.camera)
    return process.state == "waiting" and bool(process.reason) and (camera is None or camera.live)
