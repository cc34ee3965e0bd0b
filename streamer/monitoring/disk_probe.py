"""Measures the disk of the recordings without waiting for it: a network disk that is away answers late, or never.

The event loop serves everybody; a statvfs() of its own would stop live video for as long as the disk is silent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec
from msgspec.structs import asdict

from shmcam.config.settings import Settings
from shmcam.library.disks.disk_space import measure_room
from shmcam.library.settings import LibrarySettings
from streamer.monitoring.health import DiskHealth

WAIT_S = 0.2
"""The event loop waits so long for an answer, once; a local disk needs microseconds."""


class DiskProbe:
    """The room on the disk of the recordings; used by one thread."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        """`settings` returns the present settings."""
        self._settings = settings
        self._thread: threading.Thread | None = None
        self._began_s = 0.0
        self._latest = DiskHealth("", 0, 0, 0)

    def read(self) -> DiskHealth:
        """Returns the room now; while the disk does not answer, what it was, and since when."""
        if self._thread is None:
            self._began_s = time.monotonic()
            self._thread = threading.Thread(target=self._measure, name="disk", daemon=True)
            self._thread.start()
            self._thread.join(WAIT_S)
        if self._thread.is_alive():
            silent_s = time.monotonic() - self._began_s
            path = str(self._settings().paths.recordings)
            return msgspec.structs.replace(self._latest, path=path, problem=f"does not answer for {silent_s:.0f} s")
        self._thread = None
        return self._latest

    def _measure(self) -> None:
        settings = self._settings()
        path = settings.paths.recordings
        try:
            self._latest = DiskHealth(str(path), **asdict(measure_room(path, settings.table(LibrarySettings))))
        except OSError as error:
            self._latest = DiskHealth(str(path), 0, 0, 0, problem=error.strerror or str(error))
