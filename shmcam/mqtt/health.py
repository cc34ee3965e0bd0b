"""The health of this device for the fleet, and the machine's figures in each camera's state."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from msgspec import Struct

from shmcam.config.settings import Settings
from shmcam.control.messages import JSON
from shmcam.library.disks.disk_space import measure_room
from shmcam.library.settings import LibrarySettings
from shmcam.mqtt.camera_state import BROKEN_STATES, find_problem
from shmcam.runtime.clock import ClockError, read_clock_error, to_iso


def _read_version() -> str:
    try:
        return version("shmcam")
    except PackageNotFoundError:
        return ""


RUNNING_VERSION = _read_version()
"""The version that runs; what is installed may be newer, until the service is started again."""


class MachineFigures(Struct, frozen=True):
    """The figures of this machine; the defaults stand for what is not known yet."""

    version: str = RUNNING_VERSION
    version_on_disk: str = RUNNING_VERSION
    free_bytes: int = 0
    """Free on the disk of recordings; 0 with total_bytes: not known."""
    total_bytes: int = 0
    reserve_bytes: int = 0
    disk_problem: str = ""
    clock: ClockError | None = None

    def to_state(self) -> dict[str, JSON]:
        """Returns the fields that stand in the state of each camera."""
        return {
            "disk_free_gb": round(self.free_bytes / 1e9, 1) if self.total_bytes else None,
            "version": self.version,
            "version_on_disk": self.version_on_disk,
        }


def measure_machine(settings: Settings) -> MachineFigures:
    """Measures disk, clock and version; waits for the disk."""
    figures = {"version_on_disk": _read_version() or RUNNING_VERSION, "clock": read_clock_error()}
    try:
        room = measure_room(settings.paths.recordings, settings.table(LibrarySettings))
    except OSError as problem:
        return MachineFigures(disk_problem=f"disk: {problem.strerror}", **figures)  # type: ignore[arg-type]
    low = "disk low" if room.low else ""
    return MachineFigures(
        free_bytes=room.free_bytes,
        total_bytes=room.total_bytes,
        reserve_bytes=room.reserve_bytes,
        disk_problem=low,
        **figures,  # type: ignore[arg-type]
    )


def health_of(device: str, status: Mapping[str, Any], machine: MachineFigures, now_utc_ns: int) -> dict[str, JSON]:
    """Returns the payload of the health topic; `status`: the data of the hub's answer, empty if it does not answer."""
    processes, cameras = status.get("processes", []), status.get("cameras", [])
    problems = [f"{row['program']} is {row['state']}" for row in processes if row["state"] in BROKEN_STATES]
    problems += [f"{row['camera']}: {text}" for row in cameras if (text := find_problem(row, ()))]
    problems += [machine.disk_problem] * bool(machine.disk_problem)
    if not status:
        problems = ["the hub does not answer"]
    clock = machine.clock
    return {
        "device": device,
        "utc": to_iso(now_utc_ns),
        "version": machine.version,
        "ok": not problems,
        "problems": problems[:8],
        "cameras": {
            row["camera"]: {
                "state": row.get("state"),
                "fps": round(max(0.0, float(row.get("fps", 0.0))), 1),
                "drops": row.get("dropped", 0),
                "night": row.get("night"),
                "recording": row.get("recording") is not None,
            }
            for row in cameras
        },
        "disk_free_bytes": machine.free_bytes,
        "disk_total_bytes": machine.total_bytes,
        "clock": {
            "synchronized": clock is not None and clock.synchronized,
            "error_us": clock.max_us if clock and clock.synchronized else None,
            "estimated_us": clock.estimated_us if clock and clock.synchronized else None,
        },
    }
