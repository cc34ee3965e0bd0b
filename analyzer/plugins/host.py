"""The user's own score functions, each in a process of its own: it may raise, hang, leak or crash without harm.

A plug-in process attaches to the ring read-only like any program and writes the results of its function into a pipe,
one JSON object a line. The lines are read here without waiting, and a plug-in that falls silent is killed and started
again with backoff.
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
"""Enough for 32 names and texts of full length with each character escaped."""
READ_BYTES = 65_536
START_S = 30.0
"""Least time until the first line of a plug-in: importing a detector may take long."""

Result = Mapping[str, object]


class Plugin:
    """One plug-in process, started again when it ends."""

    def __init__(self, name: str, argv: list[str], timeout_s: float, *, first_retry_s: float = 1.0) -> None:
        self.name = name
        self.result: Result = {}
        """Its last result; empty while it fails."""
        self.state = "starting"
        self.restarts = 0
        self._argv, self._timeout_s = argv, timeout_s
        self._backoff = Backoff(first_s=first_retry_s)
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._rest = b""
        self._line_s = 0.0
        self._has_answered = False
        self._retry_s = 0.0

    def poll(self, now_s: float) -> bool:
        """Starts, reads, or kills it as needed; never waits. Returns: whether the result changed."""
        if self._child is None:
            if now_s >= self._retry_s:
                self._start(now_s)
            return False
        before = self.result
        self._read(now_s)
        limit_s = self._timeout_s if self._has_answered else max(START_S, self._timeout_s)
        if self._child.poll() is not None:
            self._stop(f"exited with code {self._child.returncode}", now_s)
        elif now_s - self._line_s > limit_s:
            self._stop(f"hung for {limit_s:g} s, killed", now_s)
        return self.result is not before

    def close(self) -> None:
        """Kills it; it only reads, so any instant will do."""
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
            self._retry_s = now_s + self._backoff.next_delay_s()
            self.state = f"cannot start: {problem.strerror}"
            return
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        self._pipe, self._rest, self._line_s, self._has_answered = reading, b"", now_s, False

    def _read(self, now_s: float) -> None:
        try:
            data = os.read(self._pipe, READ_BYTES)
        except BlockingIOError:
            return
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[-LINE_BYTES_MAX:]
        for line in lines:
            self._take_line(line, now_s)

    def _take_line(self, line: bytes, now_s: float) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = {"error": "unreadable line"}
        self._line_s, self._has_answered = now_s, True
        message = message if isinstance(message, dict) else {}
        if "error" in message:
            self._set_state(str(message["error"])[:200])
            self.result = {}
        elif isinstance(message.get("result"), dict):
            self._set_state("running")
            self._backoff.reset()
            self.result = message["result"]

    def _stop(self, reason: str, now_s: float) -> None:
        self.close()
        self.result, self.restarts = {}, self.restarts + 1
        delay_s = self._backoff.next_delay_s()
        self._retry_s = now_s + delay_s
        self._set_state(f"{reason}; again in {delay_s:g} s")

    def _set_state(self, state: str) -> None:
        """Logs a change of the state: a plug-in that raises on every frame gets one line."""
        if state != self.state:
            log.log(logging.INFO if state == "running" else logging.WARNING, "plug-in %s: %s", self.name, state)
            self.state = state


class Plugins:
    """The plug-ins of one analyzer; a context manager."""

    def __init__(self, settings: AnalyzerSettings, ring_name: str, folder: Path) -> None:
        self._plugins = [
            Plugin(name, build_command(name, settings, ring_name, folder), settings.plugin_timeout_s)
            for name in settings.plugins
        ]
        self.results: Mapping[str, Result] = {}
        """The last result of each, by name; a new object whenever one changed."""

    def poll(self) -> None:
        """Polls all of them; called on every pass of the loop."""
        if not self._plugins:
            return
        now_s = time.monotonic()
        changed = [plugin.poll(now_s) for plugin in self._plugins]
        if any(changed):
            self.results = {plugin.name: plugin.result for plugin in self._plugins if plugin.result}

    @property
    def states(self) -> dict[str, str]:
        """The state of each plug-in, for the heartbeat."""
        return {plugin.name: plugin.state for plugin in self._plugins}

    @property
    def trouble(self) -> str:
        """What fails, in words; empty: nothing does."""
        failing = (plugin for plugin in self._plugins if plugin.state not in ("starting", "running"))
        return "; ".join(f"plug-in {plugin.name}: {plugin.state}" for plugin in failing)

    def __enter__(self) -> Plugins:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for plugin in self._plugins:
            plugin.close()


def build_command(name: str, settings: AnalyzerSettings, ring_name: str, folder: Path) -> list[str]:
    """Returns the command line of one plug-in process."""
    options = {
        "--function": name,
        "--ring": ring_name,
        "--path": str(folder / settings.plugin_path),
        "--fps": str(settings.plugin_fps),
        "--memory-mb": str(settings.plugin_memory_mb),
    }
    return [sys.executable, "-m", "analyzer.plugins.worker", *(word for pair in options.items() for word in pair)]
