"""The last lines of the processes' logs, merged by time."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

TAIL_BYTES = 256 * 1024
"""Read at most so much from the end of each file; 400 lines of 150 characters are 60 KB."""

_OURS = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ")
_SUPERVISORDS = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) ")


def merge_tails(folder: Path, process: str, lines: int) -> list[str] | None:
    """Return the last lines of one process, or ("") of all merged by time, each behind its process's name.

    None: there is no log of that name.
    """
    files = find_logs(folder, process)
    if process and not files:
        return None
    tails = [_stamp_lines(path.stem, read_tail(path, lines)) for path in files]
    merged = [line for _, line in heapq.merge(*tails, key=lambda stamped: stamped[0])]
    return merged[-lines:]


def find_logs(folder: Path, process: str) -> list[Path]:
    """Return the log files of a process (its own, and what supervisord caught before that was open), or of all."""
    names = [f"{process}.log", f"{process}.startup.log"] if process else ["*.log"]
    return sorted(path for name in names for path in folder.glob(name))


def read_tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of one file; none if it went away."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            found = file.read(TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
    return found[1 if size > TAIL_BYTES else 0 :][-lines:]


def _stamp_lines(name: str, lines: list[str]) -> list[tuple[str, str]]:
    """Give each line its time; a line without one (a traceback) belongs to the line before."""
    stamped, when = [], ""
    for line in lines:
        when = stamp_of(line) or when
        stamped.append((when, add_name(name, line)))
    return stamped


def stamp_of(line: str) -> str:
    """Return the time a line begins with, as sortable UTC text; "" if it has none."""
    if found := _OURS.match(line):
        return found[1]
    if found := _SUPERVISORDS.match(line):  # supervisord writes local time
        local = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").astimezone()
        return f"{local.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{found[2]}Z"
    return ""


def add_name(name: str, line: str) -> str:
    """Put the process's name behind the time."""
    when = line.partition(" ")[0] if _OURS.match(line) else ""
    return f"{when} {name:<12} {line[len(when) + 1 :]}" if when else f"{name:<12} {line}"


class LogFollower:
    """Reads what is added to a set of log files, also when they are rotated or appear later."""

    def __init__(self, folder: Path, process: str) -> None:
        self._folder = folder
        self._process = process
        self._places: dict[Path, tuple[int, int]] = {}
        """Inode and offset of what was read."""
        for path in find_logs(folder, process):
            self._places[path] = (path.stat().st_ino, path.stat().st_size)

    def new_lines(self) -> Iterator[str]:
        """Yield complete lines added since the last call, merged by time."""
        fresh = [_stamp_lines(path.stem, self._added(path)) for path in find_logs(self._folder, self._process)]
        return (line for _, line in heapq.merge(*fresh, key=lambda stamped: stamped[0]))

    def _added(self, path: Path) -> list[str]:
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                inode, size = found.st_ino, found.st_size
                known, offset = self._places.get(path, (inode, 0))
                if known != inode or size < offset:
                    offset = 0  # rotated: a new file stands here
                file.seek(offset)
                data = file.read(TAIL_BYTES)
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._places[path] = (inode, offset + len(whole))
        return whole.decode(errors="replace").splitlines()
