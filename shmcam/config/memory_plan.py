"""How much memory a configuration takes: its programs at work, and its rings. Estimates, from measured figures.

The figures are of 64-bit x86 with the synthetic camera at 1280x720 and 1920x1080 (`make bench ARGS=pipeline` prints
what a default pipeline takes); what libcamera and a camera's driver take besides was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from msgspec import Struct

from shmcam.config.schema import load_tables
from shmcam.config.settings import Settings

MB = 1_000_000
SHARED_MB = 115
"""What is loaded once for all programs: interpreter, numpy, OpenCV, FFmpeg, aiohttp (shmcam/supervisord)."""
OWN_MB = {"hub": 2, "watchdog": 1, "exporter": 6, "streamer": 9}
"""Memory of each program's own, at work."""
CAMERA_MB = {"capture": 14, "analyzer": 9, "recorder": 17}
"""The same for the programs that each camera has."""
FRAMES = {"capture": 5, "recorder": 14}
"""Frames that they hold besides: conversions and a camera's buffers; what x264 keeps."""
OPTIONAL_MB = 20
SCORES_MB = 2
"""The ring of the analyzer's records."""
UNKNOWN_RATE = 60.0
"""Frames a second that are reckoned with where the camera is to give what it can."""

SYSTEM_MB = 110
"""What Raspberry Pi OS Lite takes without a desktop, before shmcam is started (not measured on hardware)."""
BOARDS = {"Zero 2 W, 3A+": 427, "3B, 3B+": 925, "4, 5 with 2 GB": 1880, "4, 5 with 4 GB": 3890}
"""Megabytes that Linux has of 512 MB, 1, 2 and 4 GB: the GPU's share and the kernel's own are gone (64-bit system)."""


class MemoryPlan(Struct, frozen=True):
    """Bytes by name."""

    programs: Mapping[str, int]
    rings: Mapping[str, int]
    """By name of the segment without its prefix: `cam0.main`."""

    @property
    def program_bytes(self) -> int:
        """All programs together."""
        return sum(self.programs.values())

    @property
    def ring_bytes(self) -> int:
        """All rings together."""
        return sum(self.rings.values())

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.program_bytes + self.ring_bytes


def plan_memory(settings: Settings, optional: int = 0) -> MemoryPlan:
    """Adds up what a configuration takes; `optional`: how many optional programs are enabled."""
    programs = {"loaded once": SHARED_MB * MB, **{name: mb * MB for name, mb in OWN_MB.items()}}
    if optional:
        programs["optional programs"] = optional * OPTIONAL_MB * MB
    rings: dict[str, int] = {}
    for camera in settings.cameras:
        frame = _frame_bytes(settings, camera)
        for role, mb in CAMERA_MB.items():
            name = role if camera == settings.cameras[0] else f"{role}-{camera}"
            programs[name] = mb * MB + FRAMES.get(role, 0) * frame
        rings |= _plan_rings(settings, camera, frame)
    return MemoryPlan(programs, rings)


def _plan_rings(settings: Settings, camera: str, frame: int) -> dict[str, int]:
    ring = cast("Any", settings.table(load_tables()["ring"], camera))  # capture's own table, which is not known here
    rate = float(settings.value(f"cameras.{camera}.framerate")) or UNKNOWN_RATE
    rings = {f"{camera}.main": ring.slots_of("main", rate) * frame, f"{camera}.scores": SCORES_MB * MB}
    if ring.downscale.enable:
        small = ring.downscale.width * ring.downscale.height * 3 // 2
        rings[f"{camera}.lores"] = ring.slots_of("lores", rate) * small
    return rings


def _frame_bytes(settings: Settings, camera: str) -> int:
    """Returns the bytes of a frame, planes of 4:2:0."""
    width, height = cast("Any", settings.table(load_tables()["camera"], camera)).size
    return int(width * height * 3 // 2)
