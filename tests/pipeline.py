"""A whole shmcam of its own for one test: real processes under a real supervisord, its own socket, port and segments.

with Pipeline(camera={"width": 320}) as shmcam:
    assert shmcam.text("save").startswith("Saved")
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

import psutil
import tomlkit
from supervisor.xmlrpc import SupervisorTransport

from tests.machine import SHORT, need_shared_memory, until

BIN = Path(sys.executable).parent
ALL = ("hub", "capture", "analyzer", "recorder", "exporter", "streamer", "watchdog")

BASE: dict[str, dict[str, Any]] = {
    "camera": {"source": "synthetic", "width": 640, "height": 480, "framerate": 30},
    "ring": {"size": 64},
    "export": {"base_dir": "captures"},
    "mjpeg_server": {"enable": True},
    "library": {"free_reserve_mb": 1},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rings_bytes(document: Mapping[str, Any]) -> int:
    """What the cameras' rings need, and 22 MB a camera for scores, packets and the long exposure."""
    cameras = document.get("cameras") or {"cam0": {}}
    sizes = [{**document["camera"], **camera} for camera in cameras.values()]
    return sum(int(size["width"] * size["height"] * 1.5 * document["ring"]["size"]) + 22_000_000 for size in sizes)


class Pipeline:
    """Owns a folder with a short path (for sockets), a supervisord, and everything below it."""

    def __init__(
        self,
        *,
        cameras: Mapping[str, Mapping[str, Any]] | None = None,
        programs: tuple[str, ...] = ALL,
        ready: tuple[str, ...] = ("capture", "streamer"),
        place: str = SHORT,
        environ: Mapping[str, str] | None = None,
        within: tuple[str, ...] = (),
        **tables: Mapping[str, Any],
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="shmcam-", dir=place))
        self.prefix = f"t{secrets.token_hex(4)}"
        self.port = free_port()
        self.environ = dict(os.environ if environ is None else environ)
        self._programs = programs
        self._within = within
        self._ready = ready
        document: dict[str, Any] = {name: dict(table) for name, table in BASE.items()}
        for name, table in tables.items():
            document.setdefault(name, {}).update(table)
        document["ring"]["prefix"] = self.prefix
        document["mjpeg_server"]["port"] = self.port
        if cameras:
            document["cameras"] = {name: dict(table) for name, table in cameras.items()}
        self.config = self.folder / "config.toml"
        self.config.write_text(tomlkit.dumps(document))
        self._rings_bytes = _rings_bytes(document)
        self._process: subprocess.Popen[bytes] | None = None

    # ---- life

    def __enter__(self) -> Pipeline:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """As a user would: `shmcam run --config …`; returns once the `ready` programs deliver."""
        need_shared_memory(self._rings_bytes - sum(path.stat().st_size for path in self.segments()))
        environ = {name: value for name, value in self.environ.items() if not name.startswith("SHMCAM_")}
        with (self.folder / "run.out").open("ab") as out:
            command = [*self._within, str(BIN / "shmcam"), "run", "--config", str(self.config)]
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        until(lambda: self._process.poll() is not None or self._supervisor_answers(), 30, "supervisord to start")
        assert self._process.poll() is None, (self.folder / "run.out").read_text()
        if unwanted := [name if name != "watchdog" else "watchdog:*" for name in ALL if name not in self._programs]:
            self.supervisorctl("stop", *unwanted)
        if "capture" in self._ready:
            until(self.frames, 30, lambda: "frames in the ring\n" + self.logs("capture"))
        if "streamer" in self._ready and "streamer" in self._programs:
            until(lambda: self._fetches("/snapshot.jpg"), 30, lambda: "a first picture\n" + self.logs("streamer"))

    @property
    def supervisord_pid(self) -> int:
        """0 before start."""
        return self._process.pid if self._process else 0

    def stop(self) -> None:
        """Stop as Ctrl-C does, then insist that nothing is left behind."""
        if self._process and self._process.poll() is None:
            children = psutil.Process(self._process.pid).children(recursive=True)
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            _, alive = psutil.wait_procs(children, timeout=20)
            names = [" ".join(child.cmdline()) for child in alive if child.status() != psutil.STATUS_ZOMBIE]
            for child in alive:
                child.kill()
        else:
            names = []
        segments = self.segments()
        for segment in segments:
            segment.unlink(missing_ok=True)
        if sys.exc_info()[0] is None and os.environ.get("SHMCAM_KEEP") is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        assert not names, f"still running after the stop: {names}"
        assert not segments, f"left in /dev/shm: {segments}"

    def is_running(self) -> bool:
        """Whether supervisord lives."""
        return self._process is not None and self._process.poll() is None

    def kill_supervisord(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    # ---- what a user does

    def text(self, line: str, seconds: float = 20) -> str:
        """`echo LINE | socat -t10 - UNIX-CONNECT:run/control.sock`, by socat itself where it is installed."""
        if shutil.which("socat"):
            command = ["socat", f"-t{seconds:g}", "-", f"UNIX-CONNECT:{self.socket}"]
            done = subprocess.run(command, input=line.encode() + b"\n", capture_output=True, timeout=seconds + 20)
            return done.stdout.decode().rstrip("\n")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(seconds)
            peer.connect(str(self.socket))
            peer.sendall(line.encode() + b"\n")
            peer.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: peer.recv(1 << 16), b"")).decode().rstrip("\n")

    def json(self, command: Mapping[str, Any], seconds: float = 20) -> dict[str, Any]:
        """One JSON command, its one reply."""
        answer: dict[str, Any] = json.loads(self.text(json.dumps(command), seconds).splitlines()[0])
        return answer

    def http(self, path: str, seconds: float = 20) -> bytes:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=seconds) as answer:
            return bytes(answer.read())

    def supervisorctl(self, *arguments: str) -> str:
        command = [str(BIN / "supervisorctl"), "-c", str(self.run / "supervisord.conf"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    def shmcam(self, *arguments: str, seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """The command line: `shmcam ARGUMENTS` against this instance."""
        environ = {**os.environ, "SHMCAM_CONFIG": str(self.config)}
        command = [str(BIN / "shmcam"), *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )

    # ---- what a test looks at

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ring_name(self, camera: str = "cam0", stream: str = "main") -> str:
        return f"/{self.prefix}.{camera}.{stream}"

    def segments(self) -> list[Path]:
        return sorted(Path("/dev/shm").glob(f"{self.prefix}.*"))

    def frames(self, camera: str = "cam0", stream: str = "main") -> int:
        """Frames published in the current generation; 0 while there is no ring."""
        from shm_ring import RingError, RingReader

        try:
            with RingReader.open(self.ring_name(camera, stream)) as ring:
                return ring.head
        except RingError:
            return 0

    def wait_recorded(self, frames: int) -> None:
        """Waits until so many frames are in each file that is being recorded."""

        def recorded() -> int:
            found = re.findall(r"RECORDING .* frames=(\d+)", self.text("record status"))
            return min(map(int, found), default=0)

        until(lambda: recorded() >= frames, 20, f"{frames} frames in the recording")

    def wait_scored(self, frames: int) -> None:
        """Waits until the analyzer has looked at so many frames more."""
        wanted = self.frames(stream="scores") + frames
        until(lambda: self.frames(stream="scores") >= wanted, 20, f"{frames} frames to be looked at")

    def logs(self, program: str) -> str:
        found = sorted((self.folder / "logs").glob(f"{program}*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in found)

    def states(self) -> dict[str, str]:
        """Program → RUNNING, BACKOFF, …"""
        return {row["name"]: row["statename"] for row in self._supervisor().getAllProcessInfo()}

    def pid(self, program: str) -> int:
        """Its process id now, 0 while it is not running."""
        return next((row["pid"] for row in self._supervisor().getAllProcessInfo() if row["name"] == program), 0)

    def kill(self, program: str, number: int = signal.SIGKILL) -> int:
        """Signal one of our own processes. Returns: the pid that was signalled."""
        pid = until(lambda: self.pid(program), 20, f"{program} to run")
        os.kill(pid, number)
        return int(pid)

    def wait_running(self, *programs: str, seconds: float = 30) -> None:
        wanted = programs or self._programs
        until(
            lambda: all(self.states().get(name) == "RUNNING" for name in wanted),
            seconds,
            f"RUNNING: {wanted}, states {self.states()}",
        )

    # ---- inside

    def _supervisor(self) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.run / 'supervisor.sock'}")
        return ServerProxy("http://127.0.0.1", transport).supervisor

    def _supervisor_answers(self) -> bool:
        try:
            return bool(self._supervisor().getState()["statecode"] == 1)
        except OSError:
            return False

    def _fetches(self, path: str) -> bool:
        try:
            return bool(self.http(path, 5))
        except OSError:
            return False
