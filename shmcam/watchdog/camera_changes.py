"""Notices cameras that `supervisorctl update` added or removed since the programs for all cameras were started.

What they know is also noted in a file, so that a watchdog killed between two of their restarts goes on where it was.
The note belongs to one run of the service: a new run starts every program with the same config.toml.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from shmcam.runtime.atomic_files import open_atomic, read_state
from shmcam.runtime.supervisord import Program

MUST_KNOW = ("hub", "exporter", "streamer")
"""Programs that read the list of cameras once, at their start, in the order of their restart."""


class CameraGroups:
    """The groups of further cameras that the programs of MUST_KNOW know."""

    def __init__(self, path: Path, run: str) -> None:
        """`run` names this run of the service."""
        self._path, self._run = path, run
        self._known = self._read()
        """None: not asked yet in this run."""
        self._is_written = self._known is not None

    def have_changed(self, programs: Iterable[Program]) -> bool:
        """Returns whether supervisord has other cameras than those known. The first call of a run notes them."""
        if self._known is None:
            self.note(programs)
        return self._known != groups_of(programs)

    def note(self, programs: Iterable[Program]) -> None:
        """Notes in memory that every program knows these cameras."""
        self._known, self._is_written = groups_of(programs), False

    def write(self) -> None:
        """Writes the note into its file, if that is not there yet. Raises: OSError; the next call tries again."""
        if not self._is_written:
            with open_atomic(self._path, replace=True) as file:
                file.write(json.dumps({"run": self._run, "groups": self._known}).encode())
            self._is_written = True

    def _read(self) -> list[str] | None:
        """Returns the groups of the file; None: no note of this run."""
        try:
            note = json.loads(read_state(self._path))
            return sorted(map(str, note["groups"])) if note["run"] == self._run else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None


def groups_of(programs: Iterable[Program]) -> list[str]:
    """Returns the cameras that have a group of programs of their own."""
    return sorted({program.group for program in programs if program.name == f"capture-{program.group}"})
