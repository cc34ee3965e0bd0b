"""A thread of this process, and what happens when it meets a bug: the process ends, and supervisord brings it back."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

STOP_S = 4.0
"""Seconds a thread may take to finish what it is at; supervisord allows the process 5."""


class Worker:
    """Something that works in a thread of its own; a context manager."""

    def __init__(self, name: str, stop: Stop) -> None:
        self.name = name
        self.stop = stop
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask to stop and let what is in hand finish."""
        self.stop.request()
        self._thread.join(STOP_S)

    def work(self) -> None:
        """Until stop is requested; whatever this raises ends the process."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self.work()
        except Exception:
            log.exception("%s broke", self.name)
            self.stop.fail()
