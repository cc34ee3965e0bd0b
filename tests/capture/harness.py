"""Real hub and capture processes for one test, with their own folder, prefix and socket; nothing is left behind."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tomlkit

from shm_ring import RingError, RingReader
from shmcam.config.settings import Settings
from shmcam.control.call import call
from shmcam.control.client import ControlClient
from shmcam.control.messages import Reply
from tests.machine import SHORT, until
from tests.programs import Program

ROOT = Path(__file__).resolve().parents[2]


class Processes:
    """`with Processes(camera={"width": 320}) as world: world.start_capture(); …`."""

    def __init__(self, cameras: dict[str, dict[str, Any]] | None = None, **tables: dict[str, Any]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cap-", dir=SHORT))
        self.prefix = f"t{secrets.token_hex(4)}"
        document: dict[str, Any] = {
            "camera": {"source": "synthetic", "width": 320, "height": 240, "framerate": 30},
            "ring": {"size": 64, "prefix": self.prefix},
        }
        for name, table in tables.items():
            document.setdefault(name, {}).update(table)
        if cameras:
            document["cameras"] = cameras
        self.config = self.folder / "config.toml"
        self.config.write_text(tomlkit.dumps(document))
        self.settings = Settings.load(self.config)
        self.script = self.folder / "camera"
        self.script.write_text("ok")
        self.children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        left = self.segments()
        for segment in left:
            segment.unlink()
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *words, "--config", str(self.config)]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SHMCAM_")}
        with (self.folder / "out").open("ab") as out:
            child = Program(command, cwd=ROOT, env=environ, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self.children.append(child)
        return child

    def start_hub(self) -> subprocess.Popen[bytes]:
        child = self.start("shmcam.hub")
        until(lambda: self.ask("ping").ok, 20, "the hub to answer")
        return child

    def start_capture(
        self, module: str = "capture", *, frames: bool = True, camera: str = "cam0"
    ) -> subprocess.Popen[bytes]:
        words = (module,) if camera == "cam0" else (module, "--camera", camera)
        child = self.start(*words)
        if frames:
            until(lambda: self.head(camera) > 2 or child.poll() is not None, 20, "frames")
            assert child.poll() is None, self.log()
        return child

    def stop(self, child: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        child.send_signal(number)
        return child.wait(60)

    def ask(self, line: str) -> Reply:
        return call(self.settings.socket_path, line, 15)

    def beat(self, role: str = "capture", camera: str = "cam0") -> dict[str, Any]:
        """The newest heartbeat, as `status` shows it."""
        rows = self.ask("status").data.get("processes", [])
        return next((row for row in rows if row["program"].startswith(role) and row["camera"] == camera), {})

    def client(self, **more: Any) -> ControlClient:
        return ControlClient("analyzer", "cam0", socket_path=self.settings.socket_path, **more)

    def name(self, camera: str = "cam0", stream: str = "main") -> str:
        return f"/{self.prefix}.{camera}.{stream}"

    def reader(self, camera: str = "cam0", stream: str = "main") -> RingReader:
        return RingReader.open(self.name(camera, stream))

    def head(self, camera: str = "cam0", stream: str = "main") -> int:
        try:
            with self.reader(camera, stream) as ring:
                return ring.head
        except RingError:
            return 0

    def segments(self) -> list[Path]:
        return sorted(Path("/dev/shm").glob(f"{self.prefix}.*"))

    def log(self, program: str = "capture") -> str:
        file = self.folder / "logs" / f"{program}.log"
        return (file.read_text() if file.exists() else "") + (self.folder / "out").read_text()
