"""The user's own command at day and night (an IR-cut filter, a lamp): argv from config.toml, no shell, one at a time.

Rules of this file: what runs is read from the file at start and never from the network (`set` refuses these keys); the
analyzer never waits for it. Where day and night follow each other faster than the command, the newest one counts.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

log = logging.getLogger(__name__)


class _Job(NamedTuple):
    argv: tuple[str, ...]
    word: str
    reason: str
    timeout_s: float


class Hooks:
    """Runs commands in a thread; a context manager."""

    def __init__(self, camera: str) -> None:
        self._camera = camera
        self._next: _Job | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self.state = ""
        """What became of the last command, for the heartbeat: empty, running, ok, failed …."""

    def run(self, argv: Sequence[str], word: str, reason: str, timeout_s: float) -> None:
        """Run `argv` soon; `word`: began or ended. Empty: nothing. Replaces a command that still waits."""
        if not argv:
            return
        with self._changed:
            self._next = _Job(tuple(argv), word, reason, timeout_s)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="hooks", daemon=True)
                self._thread.start()
            self._changed.notify()

    def __enter__(self) -> Hooks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A running command is killed: night may end while nobody is left to wait for it."""
        with self._changed:
            self._closing, self._next = True, None
            if self._child is not None and self._child.poll() is None:
                self._child.kill()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(2.0)

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._closing:
                    self._changed.wait(1.0)
                job, self._next = self._next, None
                if job is None or self._closing:
                    return
            self.state = self._execute(job)
            level = logging.INFO if self.state == "ok" else logging.WARNING
            log.log(level, "hook %s night=%s argv0=%s", self.state, job.word, job.argv[0])

    def _execute(self, job: _Job) -> str:
        self.state = "running"
        environment = {
            **os.environ,
            "SHMCAM_HOOK_CAMERA": self._camera,
            "SHMCAM_HOOK_NIGHT": job.word,
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
        except subprocess.TimeoutExpired:
            self._kill()
            return f"killed after {job.timeout_s:g} s"
        return "ok" if code == 0 else f"failed: exit code {code}"

    def _kill(self) -> None:
        """End the command and what it started: it leads a session, and so a process group, of its own."""
        if self._child is None:
            return
        os.killpg(self._child.pid, 9)
        self._child.wait()
