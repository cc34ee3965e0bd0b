"""The state of each camera as the broker gets it, from the hub's status and from events. Pure; times are passed in.

An event is newer than the status that comes next: the heartbeat behind that status may have been sent before it. So
for HOLD_S a field keeps the value that an event gave it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import asdict

from shmcam.control.messages import JSON, Event, wire_name

HOLD_S = 3.0
"""Heartbeats come once a second, and the hub's status may be a second old."""

BROKEN_STATES = frozenset({"silent", "missing", "FATAL", "EXITED", "BACKOFF"})
"""States of a process, in the hub's status, that are a problem of its camera."""

EDGES: dict[str, tuple[str, JSON]] = {
    "motion_began": ("motion", True),
    "motion_ended": ("motion", False),
    "night_began": ("night", True),
    "night_ended": ("night", False),
    "recording_started": ("recording", True),
    "recording_stopped": ("recording", False),
    "camera_found": ("online", True),
    "camera_lost": ("online", False),
}
"""The events that change a field, with its new value."""


@dataclass(slots=True)
class CameraState:
    """One camera."""

    name: str
    values: dict[str, JSON] = field(default_factory=dict)
    """The fields of the state topic, and online."""
    model: str = ""
    held: dict[str, float] = field(default_factory=dict)
    """Until when the value of a field, given by an event, is kept."""
    gone_since_s: float | None = None
    """Since when the hub does not know the camera; None: it does."""

    @property
    def is_online(self) -> bool:
        """True while the camera delivers frames, as far as the hub says."""
        return bool(self.values.get("online"))

    def set(self, name: str, value: JSON, now_s: float) -> None:
        """Takes a value over that an event gives."""
        self.values[name] = value
        self.held[name] = now_s + HOLD_S

    def update(self, values: Mapping[str, JSON], now_s: float) -> None:
        """Takes the values of a status over, without those that an event gave just now."""
        self.values |= {name: value for name, value in values.items() if self.held.get(name, 0.0) <= now_s}


class CameraStates:
    """All cameras of the device."""

    def __init__(self, forget_s: float) -> None:
        """`forget_s`: a camera that the hub has not named for so long is gone: removed from the configuration."""
        self._forget_s = forget_s
        self.by_name: dict[str, CameraState] = {}

    def note_status(self, data: Mapping[str, Any], now_s: float) -> list[str]:
        """Takes the hub's answer to `status` over. Returns: the cameras that are gone now."""
        rows = {str(row["camera"]): row for row in data["cameras"]}
        for name, row in rows.items():
            camera = self.by_name.setdefault(name, CameraState(name))
            camera.gone_since_s = None
            camera.model = str(row.get("model") or row.get("source") or "")
            camera.update(
                values_of_rows(row, _find_processes(data["processes"], name, first=name == next(iter(rows)))), now_s
            )
        for camera in self.by_name.values():
            if camera.name not in rows and camera.gone_since_s is None:
                camera.gone_since_s = now_s
                camera.values["online"] = False
        gone = [
            camera.name
            for camera in self.by_name.values()
            if camera.gone_since_s is not None and now_s - camera.gone_since_s >= self._forget_s
        ]
        for name in gone:
            del self.by_name[name]
        return gone

    def note_event(self, event: Event, now_s: float) -> CameraState | None:
        """Takes an event over. Returns: the camera whose state it changed; None: none of a known camera."""
        edge = EDGES.get(wire_name(event))
        camera = self.by_name.get(str(asdict(event).get("camera", "")))
        if edge is None or camera is None:
            return None
        camera.set(*edge, now_s)
        return camera

    def note_silence(self) -> None:
        """Notes that the hub does not answer: nothing is known of any camera."""
        for camera in self.by_name.values():
            camera.values |= {"online": False, "problem": "the hub does not answer"}


def values_of_rows(row: Mapping[str, Any], processes: Mapping[str, Mapping[str, Any]]) -> dict[str, JSON]:
    """Returns the fields of a camera's state from its row and those of its processes (by role) in the hub's status."""
    analyzer = processes.get("analyzer", {})
    figures = analyzer.get("figures") or {}
    alive = analyzer.get("state") not in BROKEN_STATES
    is_capturing = processes.get("capture", {}).get("state") not in BROKEN_STATES
    return {
        "online": row.get("state") == "found" and is_capturing,
        "state": row.get("state"),
        "fps": round(max(0.0, float(row.get("fps", 0.0))), 1) if is_capturing else 0.0,
        "drops": row.get("dropped", 0),
        "exposure_us": row.get("exposure_us"),
        "gain": row.get("gain"),
        "mode": row.get("mode"),
        "night": row.get("night") if row.get("night") is not None else figures.get("night"),
        "night_mode": figures.get("override", "auto") if alive else None,
        "dark_score": round(figures["dark_score"], 1) if "dark_score" in figures else None,
        "motion": figures.get("moving") if alive else None,
        "recording": row.get("recording") is not None,
        "problem": find_problem(row, processes.values()),
    }


def find_problem(row: Mapping[str, Any], processes: Iterable[Mapping[str, Any]]) -> str:
    """Returns the sentence of what is wrong with a camera; empty: nothing."""
    if row.get("state") == "lost":
        return str(row.get("reason") or "the camera is lost")
    for process in processes:
        if process["state"] in BROKEN_STATES:
            return f"{process['program']} is {process['state']}: {process.get('reason', '')}".rstrip(": ")
    return ""


def _find_processes(rows: Iterable[Mapping[str, Any]], camera: str, *, first: bool) -> dict[str, Mapping[str, Any]]:
    """Returns the rows of a camera's own processes by role: analyzer of cam0, analyzer-cam1 of cam1."""
    found = {}
    for row in rows:
        role, _, of = str(row["program"]).partition("-")
        if of == camera or (not of and first and role in ("capture", "analyzer", "recorder")):
            found[role] = row
    return found
