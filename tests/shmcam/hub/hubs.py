"""A real hub process in a folder of its own, and peers to talk to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import msgpack

from tests import machine
from tests.machine import PATIENCE, SHORT
from tests.programs import Program

DEADLINE_S = 20.0


class HubProcess:
    """Starts, kills and restarts `python -m shmcam.hub`; its folder is short: socket paths end at 107 bytes."""

    def __init__(self, config: str = "", **environ: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="shmcam-k", dir=SHORT))
        self.config = self.folder / "config.toml"
        self.config.write_text(config)
        self.socket = self.folder / "run/control.sock"
        self.environ = {**os.environ, **environ}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> HubProcess:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            if self.process:
                self.kill()  # whatever it does with SIGTERM
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *, wait: bool = True) -> None:
        command = [sys.executable, "-m", "shmcam.hub", "--config", str(self.config)]
        self.process = Program(command, env=self.environ)
        if wait:
            until(lambda: connectable(self.socket), "the hub listens")

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        return self.process.returncode if self.process else 0

    @property
    def log(self) -> str:
        return (self.folder / "logs/hub.log").read_text()

    def rss_bytes(self) -> int:
        assert self.process
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    # ---- ways to talk

    def connect(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(PATIENCE * DEADLINE_S)
        link.connect(str(self.socket))
        return link

    def exchange(self, data: bytes) -> bytes:
        """Send, close the sending half as socat does, and read until the hub hangs up."""
        with self.connect() as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            return read_all(link)

    def text(self, line: str) -> str:
        return self.exchange(line.encode() + b"\n").decode().rstrip("\n")

    def json(self, command: dict) -> dict:
        return json.loads(self.exchange(json.dumps(command).encode() + b"\n").splitlines()[0])


class Reader:
    """Messages of one connection, one at a time."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._unpacker = msgpack.Unpacker(raw=False)
        self._lines = b""

    def message(self) -> dict:
        while True:
            for message in self._unpacker:
                return message
            data = self.link.recv(65536)
            if not data:
                raise EOFError
            self._unpacker.feed(data)

    def line(self) -> bytes:
        while b"\n" not in self._lines:
            data = self.link.recv(65536)
            if not data:
                raise EOFError
            self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        return line

    def object(self) -> dict:
        return json.loads(self.line())


def read_all(link: socket.socket) -> bytes:
    data = b""
    while piece := link.recv(65536):
        data += piece
    return data


def connectable(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def until(condition, what: str, seconds: float = DEADLINE_S):
    """As `machine.until`; here every poll says what for."""
    return machine.until(condition, seconds, what)
