"""The user's own score functions, each in a process of its own: it may raise, hang, leak or crash, and only it suffers.

A plug-in process attaches to the ring read-only like anybody's program and sends what its function returned down a
pipe, one JSON object a line. Here the lines are read without waiting, and a plug-in that falls silent is killed and
started again with backoff.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from analyzer.settings import AnalyzerSettings
from shmcam.runtime.timers import Backoff

log = logging.getLogger(__name__)

LINE_BYTES_MAX = 32_768
"""32 names and texts of full length, each character escaped, fit; a flood does not."""
READ_BYTES = 65_536
START_S = 30.0
"""Importing a detector may take long; until its first line a plug-in has at least this."""

Result = Mapping[str, object]


class Plugin:
    """One plug-in process, started again whenever it ends."""

    def __init__(self, name: str, argv: list[str], timeout_s: float, *, first_retry_s: float = 1.0) -> None:
        self.name = name
        self.result: Result = {}
        """What it returned last; empty while it fails."""
        self.state = "starting"
        self.restarts = 0
        self._argv, self._timeout_s = argv, timeout_s
        self._backoff = Backoff(first_s=first_retry_s)
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._rest = b""
        self._heard_s = 0.0
        self._spoke = False
        self._retry_s = 0.0

    def tend(self, now_s: float) -> bool:
        """Start, read, or kill it as needed; never waits. Returns whether the result changed."""
        if self._child is None:
            if now_s >= self._retry_s:
                self._start(now_s)
            return False
        before = self.result
        self._read(now_s)
        limit_s = self._timeout_s if self._spoke else max(START_S, self._timeout_s)
        if self._child.poll() is not None:
            self._ended(f"exited with code {self._child.returncode}", now_s)
        elif now_s - self._heard_s > limit_s:
            self._ended(f"hung for {limit_s:g} s, killed", now_s)
        return self.result is not before

    def close(self) -> None:
        """End it; it only reads, so it may be killed at any instant."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            os.close(self._pipe)
            self._child = None

    def _start(self, now_s: float) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            self._child = subprocess.Popen(
                [*self._argv, "--fd", str(writing)], pass_fds=(writing,), stdin=subprocess.DEVNULL
            )
        except OSError as problem:
            os.close(reading)
            self._retry_s = now_s + self._backoff.delay_s()
            self.state = f"cannot start: {problem.strerror}"
            return
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        self._pipe, self._rest, self._heard_s, self._spoke = reading, b"", now_s, False

    def _read(self, now_s: float) -> None:
        try:
            data = os.read(self._pipe, READ_BYTES)
        except BlockingIOError:
            return
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[-LINE_BYTES_MAX:]
        for line in lines:
            self._hear(line, now_s)

    def _hear(self, line: bytes, now_s: float) -> None:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = {"error": "unreadable line"}
        self._heard_s, self._spoke = now_s, True
        said = said if isinstance(said, dict) else {}
        if "error" in said:
            self._say(str(said["error"])[:200])
            self.result = {}
        elif isinstance(said.get("result"), dict):
            self._say("running")
            self._backoff.reset()
            self.result = said["result"]

    def _ended(self, why: str, now_s: float) -> None:
        self.close()
        self.result, self.restarts = {}, self.restarts + 1
        delay_s = self._backoff.delay_s()
        self._retry_s = now_s + delay_s
        self._say(f"{why}; again in {delay_s:g} s")

    def _say(self, state: str) -> None:
        """Log changes only: a plug-in that raises on every frame gets one line."""
        if state != self.state:
            log.log(logging.INFO if state == "running" else logging.WARNING, "plug-in %s: %s", self.name, state)
            self.state = state


class Plugins:
    """All plug-ins of one analyzer; a context manager."""

    def __init__(self, settings: AnalyzerSettings, ring_name: str, folder: Path) -> None:
        self._every = [
            Plugin(name, command(name, settings, ring_name, folder), settings.plugin_timeout_s)
            for name in settings.plugins
        ]
        self.results: Mapping[str, Result] = {}
        """What each returned last, by name; a new object whenever something changed."""

    def tend(self) -> None:
        """Look after all of them; call it on every pass of the loop."""
        if not self._every:
            return
        now_s = time.monotonic()
        changed = [plugin.tend(now_s) for plugin in self._every]
        if any(changed):
            self.results = {plugin.name: plugin.result for plugin in self._every if plugin.result}

    def states(self) -> dict[str, str]:
        """Each plug-in's state, for the heartbeat."""
        return {plugin.name: plugin.state for plugin in self._every}

    def __enter__(self) -> Plugins:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for plugin in self._every:
            plugin.close()


def command(name: str, settings: AnalyzerSettings, ring_name: str, folder: Path) -> list[str]:
    """The command line of one plug-in process."""
    options = {
        "--function": name,
        "--ring": ring_name,
        "--path": str(folder / settings.plugin_path),
        "--fps": str(settings.plugin_fps),
        "--memory-mb": str(settings.plugin_memory_mb),
    }
    return [sys.executable, "-m", "analyzer.plugins.worker", *(word for pair in options.items() for word in pair)]
