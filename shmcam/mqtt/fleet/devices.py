"""The devices at a broker, as their retained topics tell of them. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from shmcam.mqtt.topics import ONLINE

COLUMNS = ("device", "state", "cameras", "disk", "clock", "version", "problem")


@dataclass(slots=True)
class FleetDevice:
    """One device."""

    name: str
    is_online: bool = False
    health: dict[str, Any] = field(default_factory=dict)
    """Its health topic; empty: not there, or not readable."""

    @property
    def clock_error_us(self) -> int | None:
        """The largest error of its clock; None: not set by an NTP client, or not known."""
        clock = self.health.get("clock")
        error_us = clock.get("error_us") if isinstance(clock, dict) else None
        return error_us if isinstance(error_us, int) else None

    def to_row(self) -> dict[str, str]:
        """Returns the cells of its line."""
        cameras = self.health.get("cameras")
        rows = [row for row in cameras.values() if isinstance(row, dict)] if isinstance(cameras, dict) else []
        well = sum(row.get("state") == "found" for row in rows)
        recording = sum(row.get("recording") is True for row in rows)
        free, total = self.health.get("disk_free_bytes"), self.health.get("disk_total_bytes")
        problems = self.health.get("problems")
        return {
            "device": self.name,
            "state": "online" if self.is_online else "offline",
            "cameras": f"{well}/{len(rows)}{f' rec {recording}' if recording else ''}" if rows else "-",
            "disk": f"{free / 1e9:.0f} GB" if isinstance(free, int) and isinstance(total, int) and total else "-",
            "clock": show_error(self.clock_error_us),
            "version": show_text(self.health.get("version", "-"))[:16],
            "problem": "; ".join(map(show_text, problems))[:100] if isinstance(problems, list) else "no health yet",
        }


class FleetDevices:
    """All devices, by name."""

    def __init__(self, prefix: str) -> None:
        """`prefix`: that of the topics."""
        self._prefix = prefix
        self.by_name: dict[str, FleetDevice] = {}

    def note(self, topic: str, payload: bytes) -> None:
        """Takes a retained message over; others are ignored."""
        levels = topic.removeprefix(f"{self._prefix}/").split("/")
        if len(levels) != 2 or not payload:
            return
        device = self.by_name.setdefault(levels[0], FleetDevice(levels[0]))
        if levels[1] == "availability":
            device.is_online = payload == ONLINE
        elif levels[1] == "health":
            device.health = read_object(payload)

    def list_all(self) -> list[FleetDevice]:
        """Returns the devices in the order of their names."""
        return [self.by_name[name] for name in sorted(self.by_name)]


def read_object(payload: bytes) -> dict[str, Any]:
    """Returns a JSON object that a stranger wrote; {}: it is none. Numbers beyond 64 bits become None."""
    try:
        value = json.loads(payload, parse_int=_to_number, parse_float=_to_number, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _to_number(digits: str) -> int | float | None:
    number = float(digits)
    if not abs(number) < 2**63:
        return None
    return number if any(c in ".eE" for c in digits) else int(digits)


def show_text(text: Any) -> str:
    """Returns the first line of a stranger's text, without what no terminal can show; "-": it is no text."""
    line = text.partition("\n")[0] if isinstance(text, str) else "-"
    return "".join(c if c.isprintable() else " " for c in line)


def show_error(error_us: int | None) -> str:
    """Returns the error of a clock in words: "±1.5 ms"; "not set" without an NTP client."""
    return "not set" if error_us is None else f"±{error_us / 1000:.1f} ms"


def to_table(rows: list[dict[str, str]], columns: tuple[str, ...]) -> str:
    """Returns rows as lines of aligned columns under a head."""
    lines = [{name: name.upper() for name in columns}, *rows]
    widths = {name: max(len(line[name]) for line in lines) for name in columns}
    return "\n".join("  ".join(line[name].ljust(widths[name]) for name in columns).rstrip() for line in lines)
