"""Runs the user's own command at day and night (an IR-cut filter, a lamp): argv from config.toml, no shell.

Rules of this file: the command is read from the file at start and never from the network (`set` refuses these keys).
One runs at a time, and the analyzer never waits for it. Where day and night follow each other faster than the command,
the newest one counts.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)


class _Job(NamedTuple):
    argv: tuple[str, ...]
    change: str
    reason: str
    timeout_s: float


class Hooks:
    """Runs commands in a thread; a context manager."""

    def __init__(self, camera: str, stop: Stop) -> None:
        self._camera = camera
        self._next: _Job | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = Worker("hooks", self._run_jobs, stop)
        self._started = False
        self.state = ""
        """The state of the last command, for the heartbeat: empty, running, ok, failed …."""

    def run(self, argv: Sequence[str], change: str, reason: str, timeout_s: float) -> None:
        """Runs `argv` soon, unless it is empty; `change`: began or ended. Replaces a command that still waits."""
        if not argv:
            return
        with self._changed:
            self._next = _Job(tuple(argv), change, reason, timeout_s)
            if not self._started:
                self._started = True
                self._thread.start()
            self._changed.notify()

    def __enter__(self) -> Hooks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kills a running command: night may end when no analyzer waits for it."""
        with self._changed:
            self._closing, self._next = True, None
            if self._child is not None and self._child.poll() is None:
                self._child.kill()
            self._changed.notify()
        if self._started:
            self._thread.join(2.0)

    def _run_jobs(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._closing:
                    self._changed.wait(1.0)
                job, self._next = self._next, None
                if job is None or self._closing:
                    return
            self.state = self._run_job(job)
            level = logging.INFO if self.state == "ok" else logging.WARNING
            log.log(level, "hook %s night=%s argv0=%s", self.state, job.change, job.argv[0])

    def _run_job(self, job: _Job) -> str:
        self.state = "running"
        environment = {
            **os.environ,
            "SHMCAM_HOOK_CAMERA": self._camera,
            "SHMCAM_HOOK_NIGHT": job.change,
            "SHMCAM_HOOK_REASON": job.reason,
        }
        try:
            with self._changed:
                if self._closing:
                    return "stopped"
                self._child = subprocess.Popen(
                    job.argv, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
                )
            code = self._child.wait(job.timeout_s)
        except OSError as problem:
            return f"failed: {problem.strerror}"
        except ValueError as problem:  # a null byte in argv
            return f"failed: {problem}"
        except subprocess.TimeoutExpired:
            self._kill()
            return f"killed after {job.timeout_s:g} s"
        return "ok" if code == 0 else f"failed: exit code {code}"

    def _kill(self) -> None:
        """Ends the command and what it started: it leads a session, and so a process group, of its own."""
        if self._child is None:
            return
        with suppress(ProcessLookupError):  # at the end of the process `__exit__` may have come first
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
