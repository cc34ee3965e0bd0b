"""The place that clips are written to: whether the disk is there, whether it is ours, and whether it has room."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from recorder.settings import RecorderSettings
from shmcam.config.settings import Settings
from shmcam.library import Catalogue, LibraryError, NoRoom
from shmcam.library.disks.disk_space import max_file_bytes_of
from shmcam.library.errors import NotWritable
from shmcam.library.retention import make_room
from shmcam.runtime.atomic_files import sync_folder
from shmcam.runtime.folder_checks import explain_unusable

log = logging.getLogger(__name__)

LEAST_BYTES = 2_000_000
"""Room needed before anything is known about the rate: a few seconds of 1080p."""
AHEAD_S = 20.0
"""Room needed, in seconds of the present rate; checked again twice in that time."""


class Storage:
    """The recordings folder of one configuration."""

    def __init__(self, settings: Settings, own: RecorderSettings, catalogue: Catalogue) -> None:
        self.settings = settings
        """The loop replaces them when a live key changes."""
        self.recordings = settings.paths.recordings
        self._marker = own.disk_marker
        self._catalogue = catalogue
        self.owner = catalogue.owner
        """The installation that the clips belong to."""
        self.was_refused = False
        """A clip ended at a limit that free space does not show: a quota, or the end of a disk that tells no size."""
        self.is_wanted = False
        """A recording is on: the writer makes room for it, or tries again."""
        self.max_file_bytes = 0
        """The largest file of this file system; 0: unknown."""
        self.refused_file_bytes = 0
        """The size of the file that was refused as too large; 0: none was."""

    @property
    def trouble(self) -> str:
        """What is wrong with making room; empty: nothing."""
        return self._catalogue.trouble

    def prepare(self, folder: Path, bytes_per_s: float, trigger: str = "manual") -> None:
        """Makes the folder and room in it. Raises: NotWritable, with what a person can do."""
        self.is_wanted = True
        self.check_mounted()
        self.make_room(folder, bytes_per_s, trigger)  # before any folder is made: its disk may be away
        self._make_folder(folder)
        limits = (max_file_bytes_of(folder), self.refused_file_bytes)
        self.max_file_bytes = min((limit for limit in limits if limit), default=0)

    def check_mounted(self) -> None:
        """Refuses an empty mount point, and a link to one that is away. Raises: NotWritable."""
        if link := self.settings.paths.find_dangling_link(self.recordings):
            raise NotWritable(f"{link} {explain_unusable(link)}")
        if self._marker and not (self.recordings / self._marker).exists():
            raise NotWritable(
                f"{self.recordings / self._marker} is missing: the disk is not mounted, or it is a new one"
                f" (then: touch {self.recordings / self._marker})"
            )

    def make_room(self, folder: Path, bytes_per_s: float, trigger: str = "manual") -> None:
        """Deletes the oldest clips until the next seconds fit above the reserve. Raises: NotWritable."""
        need_bytes = max(LEAST_BYTES, int(bytes_per_s * AHEAD_S))
        at_least_bytes, self.was_refused = need_bytes * self.was_refused, False
        try:
            # Not in `folder`: with the last clip that is deleted in it a folder goes.
            make_room(
                *(self.settings, self._catalogue, need_bytes, self.recordings),
                kind="clip",
                trigger=trigger,
                at_least_bytes=at_least_bytes,
            )
        except NoRoom as error:
            raise NotWritable(f"disk full: {error.strerror or error}") from error
        except OSError as error:
            raise NotWritable(f"{folder}: {error.strerror or error}") from error

    def make_room_again(self) -> None:
        """Ends the trouble with its cause while nothing is recorded; deletes nothing but for the limits."""
        if self.trouble and not self.is_wanted:
            with suppress(OSError, LibraryError):
                make_room(self.settings, self._catalogue, 0, self.recordings, kind="clip", trigger="rolling")

    def _make_folder(self, folder: Path) -> None:
        try:
            _make_folder(folder)
        except OSError as error:
            raise NotWritable(f"{folder}: {error.strerror or error}") from error


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it so that they survive a power cut: a synced file in a lost one is lost."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
