"""Copies what the library holds and has not uploaded, verifies it, and marks it; in a thread of its own.

Nothing is marked before rclone has compared the checksum of the copy, and nothing is ever deleted, here or there.
A file that changes while it is copied is not marked: it is copied again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shmcam.config.settings import Settings
from shmcam.control.messages import Uploaded
from shmcam.library import Catalogue, Entry, LibraryError
from shmcam.library.files import list_files
from shmcam.library.query import sql_of_group
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff, is_within_hours
from shmcam.upload.local_remote import find_local_folder, find_problem
from shmcam.upload.rclone import Rclone, RunStats, find_verified
from shmcam.upload.settings import UploadSettings
from shmcam.upload.upload_queue import BATCH_ROWS, UploadQueue

log = logging.getLogger(__name__)

IDLE_S = 5.0
"""Seconds between two looks into the library while nothing waits."""
FIRST_RETRY_S, LAST_RETRY_S = 10.0, 600.0
"""Seconds until the next try where nothing arrived: the network or the store is away."""


@dataclass(slots=True)
class UploadState:
    """What the heartbeat tells; written by the thread, read by the loop."""

    state: str = "running"
    """running (nothing waits), uploading, retrying, or paused (not within upload.hours)."""
    trouble: str = ""
    """The reason why nothing arrives, or the library cannot be used; empty: all is well."""
    waiting: int = 0
    waiting_bytes: int = 0
    uploaded: int = 0
    """Files of the library since start."""
    uploaded_bytes: int = 0
    failed: int = 0
    """Files of the library that could not be uploaded, each try counted."""
    stats: RunStats = field(default_factory=RunStats)


class StoreProblem(Exception):
    """Why nothing can be uploaded now."""


class Uploader:
    """The work of the process; `run` is the thread."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, announce: Callable[[Uploaded], None], stop: Stop
    ) -> None:
        self.settings = settings
        """The loop replaces it when a live key changes."""
        self.state = UploadState()
        self._catalogue = catalogue
        self._announce = announce
        self._stop = stop
        self._queue = UploadQueue()
        self._backoff = Backoff(FIRST_RETRY_S, LAST_RETRY_S)

    @property
    def own(self) -> UploadSettings:
        """The present [upload] table."""
        return self.settings.table(UploadSettings)

    @property
    def remote(self) -> str:
        """The place where copies go, as the library's rows name it."""
        return self.own.remote.rstrip("/") or "/"

    @property
    def failing(self) -> str:
        """The files that could not be uploaded so far, in words; empty: none."""
        rows = list(self._queue.rows.values())
        return f"{len(rows)} files could not be uploaded yet: {rows[-1].reason}" if rows else ""

    def run(self) -> None:
        """Works until stop is requested."""
        while not self._stop.requested:
            self._stop.wait(self.step())

    def step(self) -> float:
        """Uploads the next files. Returns: seconds until the next step."""
        if not self._is_hour():
            self.state.state, self.state.trouble = "paused", ""  # what is wrong is not tried, and so not known
            return IDLE_S
        try:
            chosen = self._choose_batch()
            delay_s = self._upload(*chosen) if chosen else self._look_again()
        except StoreProblem as problem:
            return self._report_trouble(str(problem))
        except (LibraryError, OSError) as problem:
            return self._report_trouble(f"library: {problem}")
        self._sum_waiting()
        return delay_s

    def _choose_batch(self) -> tuple[Path, list[Entry]] | None:
        """Returns the next rows. Raises: LibraryError."""
        where, values = self._waiting_rows()
        failed = set(self._queue.rows)
        there = self._catalogue.select(f"{where} AND id IN ({_marks(failed)})", [*values, *failed]) if failed else []
        for number in failed - {entry.id for entry in there}:
            self._queue.forget(number)  # deleted since
        delayed = self._queue.find_delayed(time.monotonic())
        where += f" AND id NOT IN ({_marks(delayed)})"
        waiting = self._catalogue.select(where, [*values, *delayed], "id", BATCH_ROWS)
        self._sum_waiting()  # after it, or what came in between would be sent and not wait
        chosen = self._queue.choose_batch(waiting, self._catalogue.folders)
        if chosen is None:
            self._note_failures(waiting, "not inside the folders of [paths]")
        return chosen

    def _waiting_rows(self) -> tuple[str, list[str]]:
        """Returns the condition of the rows that are to be uploaded, and its values."""
        groups = " OR ".join(sql_of_group(group) for group in self.own.groups) or "0"
        triggered = " AND triggered" if self.own.only_triggered else ""
        return f"uploaded != ? AND ({groups}){triggered}", [self.remote]

    def _sum_waiting(self) -> None:
        self.state.waiting, self.state.waiting_bytes = self._catalogue.sum_rows(*self._waiting_rows())

    def _upload(self, folder: Path, entries: Sequence[Entry]) -> float:
        """Copies, verifies and marks some rows. Returns: seconds until the next step.

        Raises: StoreProblem, and as mark_uploaded.
        """
        rclone = self._make_rclone()
        self._check_place(rclone)
        if self.state.trouble and not (probe := rclone.probe(self.remote)).has_answered:
            if probe.is_interrupted:
                return 0.0
            raise StoreProblem(probe.reason)
        self.state.state = "uploading"
        copied = {entry.id: status for entry in entries if (status := _stat(entry.path)) is not None}
        self._note_failures([entry for entry in entries if entry.id not in copied], "its file is not there")
        entries = [entry for entry in entries if entry.id in copied]
        files = {entry.id: [str(path.relative_to(folder)) for path in list_files(entry)] for entry in entries}
        names = [name for listed in files.values() for name in listed if "\n" not in name]
        if not names:
            return IDLE_S
        target = f"{self.remote.rstrip('/')}/{next(word for word, source in self._sources.items() if source == folder)}"
        copy = rclone.copy(folder, target, names, anew=entries[0].id in self._queue.rows)
        if copy.code != 0 and not copy.is_interrupted and not (probe := rclone.probe(self.remote)).has_answered:
            if probe.is_interrupted:
                return 0.0
            raise StoreProblem(copy.reason)
        check = copy if copy.is_interrupted else rclone.verify(folder, target, names)
        if check.is_interrupted:
            return 0.0
        self._check_place(rclone)  # unmounted while it was copied?
        verified = find_verified(check.lines)
        arrived = [entry for entry in entries if verified.issuperset(files[entry.id])]
        reason = copy.reason or check.reason or "a copy is not what the file is"
        self._note_failures([entry for entry in entries if entry not in arrived and _stat(entry.path)], reason)
        marked = sum(self._mark(entry, copied[entry.id]) for entry in arrived)
        if not arrived and len(entries) > 1:  # the store answers, and takes nothing
            raise StoreProblem(reason)
        self._end_trouble()
        return 0.0 if marked else IDLE_S

    def _look_again(self) -> float:
        """Ends the trouble with its cause also while nothing waits. Returns: seconds until the next step.

        Raises: StoreProblem.
        """
        if self.state.trouble:
            rclone = self._make_rclone()
            self._check_place(rclone)
            probe = rclone.probe(self.remote)
            if probe.is_interrupted:
                return 0.0
            if not probe.has_answered:
                raise StoreProblem(probe.reason)
            self._end_trouble()
        self.state.state = "running"
        return IDLE_S

    def _end_trouble(self) -> None:
        self._backoff.reset()
        if self.state.trouble:
            log.info("uploads go on remote=%s", self.remote)
        self.state.trouble = ""

    def _check_place(self, rclone: Rclone) -> None:
        """Refuses a folder of this machine where a copy is none. Raises: StoreProblem."""
        try:
            sections = {} if self.remote.startswith("/") else rclone.read_sections()
        except OSError as problem:
            raise StoreProblem(str(problem)) from None
        folder = find_local_folder(f"{self.remote.rstrip('/')}/", sections)
        if folder is not None and (reason := find_problem(folder, self._sources)):
            raise StoreProblem(reason)

    def _mark(self, entry: Entry, status: os.stat_result) -> bool:
        """Marks a row whose copy was verified. Returns: False if the file has changed. Raises: as mark_uploaded."""
        self._queue.forget(entry.id)
        if not self._catalogue.mark_uploaded(entry, self.remote, status):
            return False
        self.state.uploaded += 1
        self.state.uploaded_bytes += entry.bytes
        log.info("uploaded path=%s bytes=%d to=%s", entry.path, entry.bytes, self.remote)
        self._announce(Uploaded(**entry.to_event(), to=self.remote))
        return True

    def _note_failures(self, entries: Sequence[Entry], reason: str) -> None:
        for entry in entries:
            self.state.failed += 1
            self._queue.note_failure(entry.id, f"{entry.path.name}: {reason}", time.monotonic())
        if entries:
            log.warning("not uploaded files=%d path=%s reason=%s", len(entries), entries[0].path, reason)

    def _report_trouble(self, reason: str) -> float:
        """Notes why nothing arrives; logged when it changes. Returns: seconds until the next try."""
        if reason != self.state.trouble:
            log.warning("uploads wait remote=%s reason=%s", self.remote, reason)
        self.state.trouble, self.state.state = reason, "retrying"
        return self._backoff.next_delay_s()

    def _make_rclone(self) -> Rclone:
        own = self.own
        return Rclone(
            config=self.settings.folder / own.rclone_config if own.rclone_config else None,
            max_kb_s=own.max_kb_s,
            may_go_on=lambda: not self._stop.requested and self._is_hour() and self.own == own,
            on_stats=lambda stats: setattr(self.state, "stats", stats),
        )

    def _is_hour(self) -> bool:
        now = time.localtime()
        return is_within_hours(self.own.hours, now.tm_hour * 60 + now.tm_min)

    @property
    def _sources(self) -> dict[str, Path]:
        """The folders that are copied, by their names below the remote."""
        paths = self.settings.paths
        return {"captures": paths.captures, "recordings": paths.recordings, "archives": paths.archives}


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _marks(values: Collection[int]) -> str:
    """Returns as many question marks for SQL."""
    return ", ".join("?" * len(values))
