"""The whole service in the background of another word: `console`, `view` and `slave` with `--start`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from shmcam.config.settings import Settings
from shmcam.config.toml_file import OVERRIDES
from shmcam.runtime.supervisord import is_listening

READY_WITHIN_S = 90.0
"""Longest wait for a service in the background; a Pi needs several seconds."""

STOP_WITHIN_S = 15.0
"""Time from SIGTERM to SIGKILL for a service in the background."""


class BackgroundService:
    """The whole service as a child of this program, for the time of a `with` block; its output is in logs/run.out."""

    def __init__(self, config: Path, settings: Settings) -> None:
        self._config, self._settings = config, settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> BackgroundService:
        """Starts it, and waits until all its processes are there and every camera delivers."""
        self._settings.paths.logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "shmcam.cli.run.command", "--config", str(self._config)]
        command += [word for line in os.environ.get(OVERRIDES, "").splitlines() for word in ("--set", line)]
        with (self._settings.paths.logs / "run.out").open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self._process, end_s = process, time.monotonic() + READY_WITHIN_S
        while time.monotonic() < end_s and process.poll() is None and not self._is_ready():
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def _is_ready(self) -> bool:
        if not is_listening(self._settings.socket_path):
            return False
        from shmcam.control.call import call
        from shmcam.control.messages import Status

        reply = call(self._settings.socket_path, Status(), 5.0)
        cameras = reply.data.get("cameras", [])
        return reply.ok and reply.data["ok"] and all(row.get("fps", 0) > 0 for row in cameras)
