"""Reports when other programs fill the room that retention keeps free, or the library cannot be written."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from shmcam.config.settings import Settings
from shmcam.control.messages import DiskLow, Event, Reply
from shmcam.library.database import explain_not_writable
from shmcam.library.disks.disk_space import measure_room
from shmcam.library.settings import LibrarySettings
from shmcam.runtime.folder_checks import find_folder_problems

log = logging.getLogger(__name__)


class DiskMonitor:
    """Checks the disks of captures and recordings; announces once that one is low. Used by one thread."""

    def __init__(self, announce: Callable[[Event], None], missed: threading.Event) -> None:
        """`missed` is set where the library cannot be written: files of other processes may have no row."""
        self._announce = announce
        self._missed = missed
        self._low: set[Path] = set()
        self.library_trouble = ""
        """The reason why the library could not be written at the last check; empty: it could."""
        self.folder_trouble = ""
        """The folders of [paths] that could not be written at the last check, with reasons; empty: all could."""

    def check(self, settings: Settings) -> Reply:
        """Compares free room with the reserve. Raises: OSError."""
        own = settings.table(LibrarySettings)
        had_trouble, self.library_trouble = self.library_trouble, explain_not_writable(settings.paths.library)
        if self.library_trouble:
            self._missed.set()
        if self.library_trouble and not had_trouble:
            log.warning("library cannot be written reason=%s", self.library_trouble)
        self._check_folders(settings)
        for folder in (settings.paths.captures, settings.paths.recordings):
            room = measure_room(folder, own)
            free, reserve = room.free_bytes, room.reserve_bytes
            if room.low and folder not in self._low:
                self._low.add(folder)
                log.warning("disk low folder=%s %s reserve_bytes=%d", folder, room.low, reserve)
                self._announce(DiskLow(path=str(folder), free_bytes=free, need_bytes=reserve))
            elif free >= reserve and room.missing_files <= 0 and folder in self._low:
                self._low.remove(folder)
                log.info("disk has room again folder=%s free_bytes=%d", folder, free)
        return Reply(data={"low": sorted(map(str, self._low))})

    def _check_folders(self, settings: Settings) -> None:
        problems = find_folder_problems(settings, look_inside=False)
        trouble = "; ".join(map(str, problems))
        if trouble and trouble != self.folder_trouble:
            log.warning("folders cannot be used: %s", trouble)
        elif self.folder_trouble and not trouble:
            log.info("all folders can be used again")
        self.folder_trouble = trouble
