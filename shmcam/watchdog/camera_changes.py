"""Notices cameras that `supervisorctl update` added or removed since the programs for all cameras were started.

The note of what they know is a file, so that a watchdog killed between two of their restarts goes on where it was. It
belongs to one run of the service: a new run starts every program with the same config.toml.
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

    def have_changed(self, programs: Iterable[Program]) -> bool:
        """Returns whether supervisord has other cameras than those known. The first call of a run notes them."""
        groups = groups_of(programs)
        try:
            note = json.loads(read_state(self._path))
            if note["run"] == self._run:
                return bool(note["groups"] != groups)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # no note of this run
        self.note(programs)
        return False

    def note(self, programs: Iterable[Program]) -> None:
        """Notes that every program knows these cameras. Raises: OSError."""
        with open_atomic(self._path, replace=True) as file:
            file.write(json.dumps({"run": self._run, "groups": groups_of(programs)}).encode())


def groups_of(programs: Iterable[Program]) -> list[str]:
    """Returns the cameras that have a group of programs of their own."""
    return sorted({program.group for program in programs if program.name == f"capture-{program.group}"})
