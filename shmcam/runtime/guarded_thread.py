"""Threads: one whose failure ends its process, which supervisord starts again; and those that no end waits for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

STOP_S = 4.0
"""The longest wait for a thread when its process stops; supervisord allows the process 5 s."""


class Worker:
    """A daemon thread that runs one function; as a context manager it starts it, and requests the stop at the end."""

    def __init__(
        self, name: str, work: Callable[[], None], stop: Stop | None, wake: Callable[[], None] | None = None
    ) -> None:
        """`work` returns once `stop` is requested; without a `stop` a failure is logged and ends only the thread.

        `wake` ends a wait of `work` that is not one for `stop`.
        """
        self.name = name
        self._work, self._stop, self._wake = work, stop, wake
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Waits for the end of the thread. Returns: whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Logs an exception that leaves the block and ends the process; for work that goes on after a failed job."""
        try:
            yield
        except Exception:
            log.exception("thread %s broke", self.name)
            if self._stop is not None:
                self._stop.fail()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Requests the stop and lets the job in progress finish."""
        if self._stop is not None:
            self._stop.request()
        if self._wake is not None:
            self._wake()
        self.join(STOP_S)

    def _run(self) -> None:
        with self.guard():
            self._work()


class ThreadForEach(ThreadPoolExecutor):
    """Runs each call in a daemon thread: asyncio and Python wait for a pool's, and a resolver may hold one up."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begins a call. Returns: its result to come."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as problem:  # noqa: BLE001 - whoever waits for the result gets it
                future.set_exception(problem)

        future.set_running_or_notify_cancel()
        threading.Thread(target=run, daemon=True).start()
        return future
