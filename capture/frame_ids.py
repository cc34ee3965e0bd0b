"""A mark on disk that no frame id has passed, so that a reboot or a power cut gives no number out twice.

Shared memory and the run folder are gone then, but a frame id names pictures, CSV rows and sidecars for ever. The mark
is written far ahead, so that an SD card sees a sector an hour; whoever finds it after anything but a clean end goes
on from it, with a jump. The disk is only ever touched by a thread: frames wait for none. A mark that comes late, from
a slow disk or one mounted after the start, is gone on from as soon as it is read; none is lowered unread.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from shmcam.runtime.atomic_files import read_state, sync_folder
from shmcam.runtime.clock import now_ns

AHEAD = 200_000
"""Ids kept ready, and what a power cut skips at most; half of them are an hour at 30 frames a second."""

JOIN_S = 1.0
"""Longest wait for the disk, at the first frame and at the end; a card that hangs costs no more."""

RETRY_NS = 60_000_000_000
MARK_MAX = 1 << 53
"""Whole numbers that JavaScript, hence the page, can tell apart; a mark beyond is a damaged file."""
MARK_BYTES = 32
"""Written in place: that needs no room on a full disk, and within a sector the old mark is there or the new one."""

log = logging.getLogger(__name__)


class FrameIds:
    """One camera's mark. A library or disk that is away costs the promise, said once, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = 0
        """On disk, as far as we know."""
        self._floor = 0
        """No id below this is to be given out any more: a mark that was found."""
        self._old = 0
        """A mark up to here, found at the start, says nothing new."""
        self._seen: set[bytes] = set()
        """The contents that this process read or wrote; anything else in the file comes from another process."""
        self._reached = 0
        """No id from here on was given out yet."""
        self._begun = self._told = False
        self._retry_ns = 0
        self._thread: threading.Thread | None = None

    def begin(self, next_id: int, *, exact: bool) -> int:
        """Returns the id of a process's first frame; `exact`: frames that a crash has left give it exactly.

        They do as far as the mark can be theirs: one further ahead than marks are written was made by other frames.
        """
        if not self._begun:
            self._begun = True
            self._old = next_id + AHEAD if exact else 0
            self._run_in_thread(self._read)
            self._wait()
            if self._is_busy:
                log.warning("frame ids may come again until a slow disk has given %s", self._path)
        return self.advance_mark(next_id)

    def advance_mark(self, next_id: int) -> int:
        """Keeps the mark ahead of the ids given out; call it about once a second. Returns: the next id."""
        if self._floor > max(self._reached, next_id):
            level = logging.WARNING if self._reached else logging.INFO  # warned of: ids were given out unread
            log.log(level, "frame ids go on at %d, not at %d: %s", self._floor, next_id, self._path)
            next_id = self._floor
        self._reached = reached = max(self._reached, next_id)  # a replay's ids may lie below
        if reached + AHEAD // 2 > self._mark and now_ns() >= self._retry_ns and not self._is_busy:
            self._run_in_thread(lambda: self._store(reached, AHEAD))
        return next_id

    def end(self, next_id: int) -> None:
        """After a clean end the next process goes on without a jump."""
        self._wait()
        if self._begun and not self._is_busy:
            reached = max(self._reached, next_id)
            self._run_in_thread(lambda: self._store(reached, 0))
            self._wait()

    # ---- inside

    @property
    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run_in_thread(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=work, name="frame ids", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def _read(self) -> None:
        try:
            self._learn(read_state(self._path)[:MARK_BYTES], self._old)
        except FileNotFoundError:
            return
        except OSError as problem:
            self._warn_unreadable(problem)

    def _learn(self, found: bytes, old: int = 0) -> None:
        """Takes the mark that the file holds, unless it is our own."""
        if found in self._seen:
            return
        self._seen.add(found)
        try:
            mark = int(found)
            if not 0 <= mark < MARK_MAX:
                raise ValueError(mark)
        except ValueError as problem:
            self._warn_unreadable(problem)
            return
        self._mark = mark
        if mark > old:
            self._floor = max(self._floor, mark)

    def _warn_unreadable(self, problem: Exception) -> None:
        log.warning("frame ids of earlier days may come again: %s is unreadable: %s", self._path, problem)

    def _store(self, reached: int, ahead: int) -> None:
        """Writes the mark `ahead` of the id reached, or of the mark that is there; 0, at the end, is not synced."""
        try:
            new = not self._path.exists()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            try:
                if not new:
                    self._learn(os.pread(descriptor, MARK_BYTES, 0))
                mark = max(reached, self._floor) + ahead
                line = f"{mark}\n".rjust(MARK_BYTES).encode()
                self._seen.add(line)
                os.pwrite(descriptor, line, 0)
                if ahead:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if new and ahead:
                sync_folder(self._path.parent)
            self._mark = mark
        except OSError as problem:
            self._retry_ns = now_ns() + RETRY_NS
            if not self._told:
                self._told = True
                log.warning("after a power cut frame ids may come again: %s", problem)
