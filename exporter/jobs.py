"""Work that takes longer than a control loop may: a thread with a bounded queue.

What is expected to fail (disk, damaged file, wrong wish) becomes the answer. Anything else is a bug: it is logged, the
process stops, and supervisord brings it back.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from control.messages import Reply, error
from exporter import answers
from library import LibraryError
from service.stop import Stop
from shm_ring import RingError

log = logging.getLogger(__name__)

STOP_S = 4.0
"""Seconds the last job may take when the process is asked to stop; supervisord allows 5."""

Work = Callable[[], Reply]


class Asked(Protocol):
    """Whoever wants the answer; `control.client.Request` is one."""

    def reply(self, answer: Reply) -> bool:
        """Take the answer; from any thread."""


class Jobs:
    """One worker thread; a context manager."""

    def __init__(self, name: str, limit: int, stop: Stop) -> None:
        """`limit`: jobs that may wait."""
        self._name = name
        self._stop = stop
        self._queue: queue.Queue[tuple[Work, Asked | None]] = queue.Queue(limit)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._since_s = 0.0
        self.done = 0
        """Jobs that succeeded."""
        self.failed = 0
        """Jobs whose answer was an error."""
        self.refused = 0
        """Jobs the full queue had no room for."""
        self.broken = False
        """The thread met a bug; the process must end with an error."""

    def __enter__(self) -> Jobs:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the job in hand finish; what waits is answered with an error."""
        self._stop.request()
        self._thread.join(STOP_S)

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return self._queue.qsize()

    @property
    def busy_s(self) -> float:
        """Seconds the present job has taken so far; 0 when idle."""
        return time.monotonic() - self._since_s if self._since_s else 0.0

    def submit(self, work: Work, asked: Asked | None = None) -> bool:
        """Queue a job; a full queue answers `asked` at once. Returns: whether there was room."""
        try:
            self._queue.put_nowait((work, asked))
        except queue.Full:
            self.refused += 1
            if asked is not None:
                asked.reply(error(f"busy: {self._queue.maxsize} commands are waiting to be carried out", "busy"))
            return False
        return True

    def _run(self) -> None:
        while True:
            try:
                work, asked = self._queue.get(timeout=0.2)
            except queue.Empty:
                if self._stop.requested:
                    return
                continue
            stopping = self._stop.requested
            answer = error("the exporter is stopping", "stopping") if stopping else self._carried_out(work)
            self.done += answer.ok
            self.failed += not answer.ok
            if asked is not None:
                asked.reply(answer)

    def _carried_out(self, work: Work) -> Reply:
        self._since_s = time.monotonic()
        try:
            return work()
        except ValueError as problem:  # ours are the caller's fault and say what was expected
            log.info("job refused worker=%s reason=%s", self._name, problem)
            return error(str(problem), "refused")
        except (LibraryError, RingError, OSError, sqlite3.Error) as problem:
            log.warning("job failed worker=%s reason=%s", self._name, problem)
            return answers.not_saved(str(problem))
        except Exception:
            log.exception("worker %s broke", self._name)
            self.broken = True
            self._stop.request()
            return error("the exporter met a bug and starts again; its log tells", "failed")
        finally:
            self._since_s = 0.0
