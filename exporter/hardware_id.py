"""Asks the hub what camera stands behind a name: dark frames belong to a sensor, not to a name in config.toml."""

from __future__ import annotations

from pathlib import Path

from shmcam.control.call import call
from shmcam.control.messages import Status

TIMEOUT_S = 2.0


def read_camera_id(socket_path: Path, camera: str) -> str:
    """Returns model and id of a camera; empty where the hub or capture does not tell."""
    rows = call(socket_path, Status(), TIMEOUT_S).data.get("cameras")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("camera") == camera:
            words = [str(row.get(name) or "") for name in ("source", "model", "device_id")]
            return " ".join(word for word in words if word)
    return ""
