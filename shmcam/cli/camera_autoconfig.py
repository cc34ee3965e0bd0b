"""Uses every connected camera where config.toml names none.

`shmcam run` asks a child process which cameras answer, as libcamera must not be loaded in what becomes supervisord, and
writes them into the run folder, where every process reads them with config.toml. It asks again only when the video
devices of this machine are others than at the last time: on a small board the answer takes seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from shmcam.config.settings import CONNECTED, Settings
from shmcam.runtime.atomic_files import open_atomic, read_state

ANSWER_S = 30.0
"""Longest time to look for cameras; then the one camera of [camera] is used, and the next start looks again."""

VIDEO_CLASSES = ("video4linux", "media")
"""Devices of webcams, of capture cards and of sensors, in /sys/class."""


def note_connected_cameras(settings: Settings, sysfs: Path = Path("/sys/class")) -> Settings:
    """Brings the note of connected cameras in line. Returns the settings with them. Raises: SettingsError, OSError."""
    note = settings.paths.run / CONNECTED
    if not settings.leaves_cameras_open:
        note.unlink(missing_ok=True)
        return settings
    devices = [str(settings.value("camera.source")), *list_devices(sysfs)]
    try:
        if json.loads(read_state(note))["devices"] == devices:
            return settings.with_connected_cameras()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # no note, or an unusable one
    usable = _ask() if devices[1:] else []
    if usable is None:  # noted, it would be the answer for these devices at every later start
        note.unlink(missing_ok=True)
        return settings.with_connected_cameras()
    cameras = choose_cameras(usable, str(settings.value("camera.source")))
    with open_atomic(note, replace=True) as file:
        file.write(json.dumps({"devices": devices, "cameras": cameras}).encode())
    return settings.with_connected_cameras()


def choose_cameras(usable: list[dict[str, Any]], source: str) -> dict[str, dict[str, Any]]:
    """Returns the tables [cameras.…] of the cameras to use; none for a single one, which [camera] finds by itself."""
    chosen = [camera for camera in usable if source in ("auto", camera["source"])]
    return {f"cam{number}": camera for number, camera in enumerate(chosen)} if len(chosen) > 1 else {}


def list_devices(sysfs: Path) -> list[str]:
    """Returns the video devices of this machine with their names, as far as the kernel tells them."""
    nodes = [node for name in VIDEO_CLASSES for node in sorted((sysfs / name).glob("*"))]
    return [f"{node.name} {_read(node / 'name')}".strip() for node in nodes]


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _ask() -> list[dict[str, Any]] | None:
    """Returns source and index of each camera that answers; None if the look for them failed."""
    command = [sys.executable, "-m", "capture.sources.detect"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ANSWER_S, check=True)
        return list(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError) as problem:
        print(f"shmcam run: could not look for cameras: {problem}", file=sys.stderr)
        return None
