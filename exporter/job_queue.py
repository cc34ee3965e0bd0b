"""Work that takes longer than a control loop may: a thread with a bounded queue.

What is expected to fail (disk, damaged file, encoder, wrong wish) becomes the answer. Anything else is a bug: it is
logged, the process stops, and supervisord brings it back.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import time
from collections.abc import Callable

import av

from exporter import replies
from shm_ring import RingError
from shmcam.control.client import Request
from shmcam.control.messages import Reply, error
from shmcam.library import LibraryError, NoSuchEntry
from shmcam.runtime.stop import Stop
from shmcam.runtime.worker import Worker

log = logging.getLogger(__name__)

Work = Callable[[], Reply]


class JobQueue:
    """One thread; when the process stops, the job in hand is finished and what waits is answered with an error."""

    def __init__(self, name: str, limit: int, stop: Stop) -> None:
        """`limit`: jobs that may wait."""
        self.thread = Worker(name, self._run, stop)
        """Started by `with`."""
        self._stop = stop
        self._queue: queue.Queue[tuple[Work, Request | None]] = queue.Queue(limit)
        self._since_s = 0.0
        self.done = 0
        """Jobs that succeeded."""
        self.failed = 0
        """Jobs whose answer was an error."""
        self.refused = 0
        """Jobs the full queue had no room for."""

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return self._queue.qsize()

    @property
    def busy_s(self) -> float:
        """Seconds the present job has taken so far; 0 when idle."""
        return time.monotonic() - self._since_s if self._since_s else 0.0

    def submit(self, work: Work, request: Request | None = None) -> bool:
        """Queue a job; a full queue answers `request` at once. Returns: whether there was room."""
        try:
            self._queue.put_nowait((work, request))
        except queue.Full:
            self.refused += 1
            if request is not None:
                request.reply(error(f"busy: {self._queue.maxsize} commands are waiting to be carried out", "busy"))
            return False
        return True

    def _run(self) -> None:
        while True:
            try:
                work, request = self._queue.get(timeout=0.2)
            except queue.Empty:
                if self._stop.requested:
                    return
                continue
            answer = error("the exporter is stopping", "stopping")
            if not self._stop.requested:
                answer = error("the exporter met a bug and starts again; its log tells", "failed")
                with self.thread.guard():
                    answer = self._carried_out(work)
            self.done += answer.ok
            self.failed += not answer.ok
            if request is not None:
                request.reply(answer)

    def _carried_out(self, work: Work) -> Reply:
        self._since_s = time.monotonic()
        try:
            return work()
        except (ValueError, NoSuchEntry) as problem:  # ours are the caller's fault and say what was expected
            log.info("job refused worker=%s reason=%s", self.thread.name, problem)
            return replies.reply_refused(problem)
        except (LibraryError, RingError, OSError, sqlite3.Error, av.FFmpegError) as problem:
            log.warning("job failed worker=%s reason=%s", self.thread.name, problem)
            return replies.reply_not_saved(str(problem))
        finally:
            self._since_s = 0.0
