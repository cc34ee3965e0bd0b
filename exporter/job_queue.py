"""Carries out jobs that take too long for the control loop, in a thread with a bounded queue.

An expected failure (disk, damaged file, encoder, wrong command) becomes the reply. Any other is a bug: the worker logs
it, the process stops, and supervisord starts it again.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from contextlib import suppress

import av

from exporter import replies
from exporter.pictures.save import SavedInPart
from shm_ring import RingError
from shmcam.control.client import Request
from shmcam.control.messages import Reply, error
from shmcam.library import LibraryError, NoSuchEntry
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

Work = Callable[[], Reply]

WAIT_S = 2.0
"""The longest wait for a job; a stop ends it at once."""


REFUSALS = ("bad_arguments", "not_found", "not_possible")
"""The statuses of a wrong command (`replies.reply_refused`): the person's fault, no failure of the exporter."""


class JobQueue:
    """One thread and its queue. When the process stops, the running job ends, and the waiting ones get an error."""

    def __init__(self, name: str, limit: int, stop: Stop) -> None:
        """`limit`: the most jobs that may wait."""
        self.thread = Worker(name, self._run, stop, self._wake)
        """The thread; `with` starts it."""
        self._stop = stop
        self._queue: queue.Queue[tuple[Work, Request | None] | None] = queue.Queue(limit)
        """The jobs; None only ends a wait."""
        self._started_s = 0.0
        self.done = 0
        """The number of jobs that succeeded."""
        self.failed = 0
        """The number of jobs whose reply was an error, other than the refusal of a wrong command."""
        self.refused = 0
        """The number of jobs that the full queue refused."""

    @property
    def waiting(self) -> int:
        """The number of jobs in the queue."""
        return self._queue.qsize()

    @property
    def busy_s(self) -> float:
        """The seconds that the present job has taken so far; 0 when idle."""
        return time.monotonic() - self._started_s if self._started_s else 0.0

    def submit(self, work: Work, request: Request | None = None) -> bool:
        """Queues a job; a full queue replies to `request` at once. Returns: whether there was room."""
        try:
            self._queue.put_nowait((work, request))
        except queue.Full:
            self.refused += 1
            if request is not None:
                request.reply(error(f"busy: {self._queue.maxsize} commands are waiting to be carried out", "busy"))
            return False
        return True

    def _wake(self) -> None:
        with suppress(queue.Full):  # then it does not wait
            self._queue.put_nowait(None)

    def _run(self) -> None:
        while not (self._stop.requested and self._queue.empty()):
            job = None
            with suppress(queue.Empty):
                job = self._queue.get(timeout=WAIT_S)
            if job is None:
                continue
            work, request = job
            reply = error("the exporter is stopping", "stopping")
            if not self._stop.requested:
                reply = error("the exporter met a bug and starts again; its log tells", "failed")
                with self.thread.guard():
                    reply = self._carry_out(work)
            self.done += reply.ok
            self.failed += not reply.ok and reply.status not in REFUSALS
            if request is not None:
                request.reply(reply)

    def _carry_out(self, work: Work) -> Reply:
        self._started_s = time.monotonic()
        try:
            return work()
        except (ValueError, LibraryError, RingError, OSError, av.FFmpegError) as problem:
            # some of FFmpeg's errors are ValueErrors, too
            if isinstance(problem, ValueError | NoSuchEntry) and not isinstance(problem, av.FFmpegError):
                log.info("job refused worker=%s reason=%s", self.thread.name, problem)
                return replies.reply_refused(problem)  # the caller's fault; the text says what was expected
            log.warning("job failed worker=%s reason=%s", self.thread.name, problem)
            saved = problem.entries if isinstance(problem, SavedInPart) else ()
            return replies.reply_not_saved(str(problem), saved)
        finally:
            self._started_s = 0.0
