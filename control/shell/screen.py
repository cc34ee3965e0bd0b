"""What the console shows, as lines of text: cameras, processes, picture, log, keys. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

KEYS = "r record  s save  p picture  n night  c next camera  q quit"
PICTURE_LINES_MAX = 24
_ANSI = re.compile(r"\x1b\[[0-9;]*m")

COLOURS = {
    "running": "\x1b[32m",
    "recording": "\x1b[31m",
    "silent": "\x1b[31m",
    "FATAL": "\x1b[31m",
    "missing": "\x1b[33m",
}


@dataclass
class View:
    """Everything the console knows."""

    status: dict[str, Any] = field(default_factory=dict)
    """Data of the status command."""
    camera: str = ""
    said: str = ""
    """Last answer to a key."""
    log: list[str] = field(default_factory=list)
    picture: list[str] = field(default_factory=list)
    """Lines with colours."""
    problem: str = ""
    """Why nothing is known, such as no hub."""


def render(view: View, columns: int, lines: int) -> list[str]:
    """Return exactly `lines` lines of at most `columns` cells."""
    top = [_title(view, columns), *(_camera(row) for row in view.status.get("cameras", []))]
    top += [_process(row) for row in view.status.get("processes", [])]
    bottom = [f"> {view.said}" if view.said else "", KEYS]
    room = lines - len(top) - len(bottom)
    picture = view.picture[: max(0, min(room - 3, PICTURE_LINES_MAX))]
    tail = view.log[len(view.log) - max(0, room - len(picture)) :] if room > len(picture) else []
    shown = [*top, *picture, *tail]
    shown = shown[: max(0, lines - len(bottom))]
    shown += [""] * (lines - len(bottom) - len(shown))
    return [cut(line, columns) for line in [*shown, *bottom][:lines]]


def _title(view: View, columns: int) -> str:
    text = f" shmcam  {view.camera}  {view.problem}"
    return f"\x1b[7m{text[:columns].ljust(columns)}\x1b[0m"


def _camera(row: dict[str, Any]) -> str:
    night = {True: "NIGHT", False: "DAY", None: ""}[row.get("night")]
    rate = f"{row['fps']:.1f}/s" if row.get("fps", -1) >= 0 else ""
    recording = "\x1b[31m● recording\x1b[0m" if row.get("recording") else ""
    words = (
        row["camera"],
        row["state"],
        row["source"],
        row["model"],
        rate,
        row["mode"],
        night,
        recording,
        row["reason"],
    )
    return " ".join(str(word) for word in words if word)


def _process(row: dict[str, Any]) -> str:
    colour = COLOURS.get(row["state"], "")
    rate = f"{row['fps']:5.1f}/s" if row["fps"] >= 0 else "       "
    memory = f"{row['rss_bytes'] / 1048576:4.0f} MiB" if row["rss_bytes"] else "        "
    lag = f"lag {row['lag']}" if row["lag"] > 0 else ""
    laps = f"laps {row['laps']}" if row["laps"] else ""
    words = " ".join(word for word in (lag, laps, row["reason"]) if word)
    return f"  {row['program']:<16} {colour}{row['state']:<10}\x1b[0m {rate} {memory} {words}"


def cut(line: str, columns: int) -> str:
    """Shorten a line to so many visible cells; colours count for nothing."""
    if len(_ANSI.sub("", line)) <= columns:
        return line
    shown, cells = [], 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b"):
            shown.append(part)
            continue
        shown.append(part[: columns - cells])
        cells += len(shown[-1])
    return "".join(shown) + "\x1b[0m"
