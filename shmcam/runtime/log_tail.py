"""Reads the last lines of the processes' logs, merged by time."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from shmcam.runtime.atomic_files import open_regular

TAIL_BYTES = 256 * 1024
"""Bytes read from the end of each file at most; 400 lines of 150 characters are 60 KB."""

LINE_CHARACTERS_MAX = 1000
"""Longer lines are cut: a line of a terminal has some hundred characters, and an answer must fit one message."""

ANSWER_CHARACTERS_MAX = 200_000
"""Characters of all lines together; the oldest lines give way. 400 lines of 500 characters."""

_OURS = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ")
_SUPERVISORDS = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) ")


def merge_tails(folder: Path, process: str, lines: int) -> list[str] | None:
    """Returns the last lines of one process, or ("") of all merged by time, each after its process's name.

    None if there is no log of that name.
    """
    files = find_logs(folder, process)
    if process and not files:
        return None
    tails = [_stamp_lines(path.stem, read_tail(path, lines)) for path in files]
    merged = [_shorten(line) for _, line in heapq.merge(*tails, key=lambda stamped: stamped[0])]
    merged = merged[max(0, len(merged) - lines) :]  # [-0:] would be all
    while sum(map(len, merged)) > ANSWER_CHARACTERS_MAX:
        merged = merged[len(merged) // 10 + 1 :]
    return merged


def _shorten(line: str) -> str:
    return line if len(line) <= LINE_CHARACTERS_MAX else f"{line[:LINE_CHARACTERS_MAX]} … ({len(line)} characters)"


def find_logs(folder: Path, process: str) -> list[Path]:
    """Returns the log files of a process (its own, and supervisord's from before it was open), or of all."""
    names = [f"{process}.log", f"{process}.startup.log"] if process else ["*.log"]
    return sorted(path for name in names for path in folder.glob(name))


def read_tail(path: Path, lines: int) -> list[str]:
    """Returns the last lines of one file; none if the file is gone."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            found = file.read(TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
    return found[1 if size > TAIL_BYTES else 0 :][-lines:]


def _stamp_lines(name: str, lines: list[str]) -> list[tuple[str, str]]:
    """Returns each line with its time, after the process's name.

    A line without a time (a traceback) has that of the line before.
    """
    stamped, when = [], ""
    for line in lines:
        if ours := _OURS.match(line):
            when = ours[1]
            stamped.append((when, f"{when} {name:<12} {line[len(when) + 1 :]}"))
        else:
            when = _read_supervisord_time(line) or when
            stamped.append((when, f"{name:<12} {line}"))
    return stamped


def _read_supervisord_time(line: str) -> str:
    """Returns the local time at the start of a line as ours are written; "" if there is none."""
    match = _SUPERVISORDS.match(line)
    if match is None:
        return ""
    local = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").astimezone()
    return f"{local.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{match[2]}Z"


class LogFollower:
    """A reader of the lines that are added to log files, also when these are rotated or created later."""

    def __init__(self, folder: Path, process: str) -> None:
        self._folder = folder
        self._process = process
        self._places: dict[Path, tuple[int, int]] = {}
        """The inode of each file and the offset up to which it was read."""
        for path in find_logs(folder, process):
            with suppress(OSError):
                self._places[path] = (path.stat().st_ino, path.stat().st_size)

    def read_new(self) -> Iterator[str]:
        """Yields the complete lines added since the last call, merged by time."""
        fresh = [_stamp_lines(path.stem, self._read_added(path)) for path in find_logs(self._folder, self._process)]
        return (line for _, line in heapq.merge(*fresh, key=lambda stamped: stamped[0]))

    def _read_added(self, path: Path) -> list[str]:
        try:
            with open_regular(path) as file:
                status = os.fstat(file.fileno())
                inode, size = status.st_ino, status.st_size
                last_inode, offset = self._places.get(path, (inode, 0))
                if last_inode != inode or size < offset:
                    offset = 0  # rotated: this is a new file
                file.seek(offset)
                data = file.read(TAIL_BYTES)
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._places[path] = (inode, offset + len(whole))
        return whole.decode(errors="replace").splitlines()
