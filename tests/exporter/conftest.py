"""A real exporter and a real hub on rings that the test itself writes: every frame is known to the last pixel."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shm_ring import FrameMeta, RingWriter
from shm_ring.formats import Geometry, geometry, planes
from shmcam.config.settings import Settings
from shmcam.control.call import call
from shmcam.control.messages import Reply
from shmcam.imaging import frame_number_code
from shmcam.runtime.clock import now_ns, to_utc_ns
from tests.machine import until
from tests.programs import Program

HOME = Path(__file__).parents[2]
PERIOD_NS = 33_333_333
BASES = itertools.count(1000, 1000)
"""First frame ids of feeds: tests that share an exporter must not share file names."""


class Feed:
    """One camera: frames whose number stands in the pixels, published when the test says so."""

    def __init__(self, settings: Settings, camera: str, layout: Geometry, slots: int) -> None:
        settings.paths.run.mkdir(parents=True, exist_ok=True)
        self.layout = layout
        self.base = self.next_id = next(BASES)
        self.rng = np.random.default_rng(1)
        self.writer = RingWriter.create(
            settings.ring_name(camera),
            slots=slots,
            payload_bytes=layout.payload_bytes,
            lock_dir=settings.paths.run,
            camera=camera,
            stream="main",
        )

    def payload(self, frame_id: int, base: float = 90.0, noise: float = 0.0) -> np.ndarray:
        payload = np.full(self.layout.payload_bytes, 128, np.uint8)
        luma = planes(payload, self.layout)[0]
        values = np.linspace(base, base + 60, luma.shape[1])[None, :] + self.rng.normal(0, noise, luma.shape[:2])
        luma[...] = np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(luma.shape[:2] + (1,) * (luma.ndim - 2))
        frame_number_code.draw(luma, frame_id)
        return payload

    def publish(self, count: int = 1, ago_ns: int = 0, noise: float = 0.0, at_ns: int = 0, **meta: Any) -> int:
        """Publish frames one period apart, the last of them `ago_ns` before `at_ns` (or now). Returns the last id."""
        payloads = [self.payload(self.next_id + number, noise=noise) for number in range(count)]
        last_ns = (at_ns or now_ns()) - ago_ns
        for number, payload in enumerate(payloads):
            captured = last_ns - (count - 1 - number) * PERIOD_NS
            values = {"exposure_us": 10_000, "analogue_gain": 2.0, "frame_duration_us": PERIOD_NS // 1000, **meta}
            known = FrameMeta(self.next_id, captured, to_utc_ns(captured), **values)
            self.writer.publish(payload, known, self.layout)
            self.next_id += 1
        return self.next_id - 1

    def close(self) -> None:
        self.writer.retire()
        self.writer.close()


class Service:
    """Hub and exporter as processes; `call` speaks to them over the real socket."""

    def __init__(self, folder: Path, toml: str = "", environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.environ = dict(os.environ if environ is None else environ)
        self.config = folder / "config.toml"
        prefix = f"exp{os.getpid()}{secrets.token_hex(3)}"
        self.config.write_text(f'[ring]\nprefix = "{prefix}"\n[paths]\nrun = "run"\n{toml}')
        self.settings = Settings.load(self.config, environ={})
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str) -> subprocess.Popen[bytes]:
        module = "shmcam.hub" if role == "hub" else role
        log = (self.folder / f"{role}.out").open("ab")
        environ = {
            name: value for name, value in self.environ.items() if not name.startswith(("SHMCAM_", "SUPERVISOR"))
        }
        self.processes[role] = Program(
            [sys.executable, "-m", module, "--config", str(self.config)], cwd=HOME, env=environ, stdout=log, stderr=log
        )
        log.close()
        return self.processes[role]

    def call(self, line: str, timeout_s: float = 30.0) -> Reply:
        return call(self.settings.socket_path, line, timeout_s)

    def ready(self) -> None:
        until(lambda: self.call("pictures", 5).status == "pictures", 30, "answer from the exporter: " + self.logs())

    def logs(self) -> str:
        texts = [path.read_text(errors="replace") for path in self.folder.glob("logs/*.log")]
        return "".join(texts + [path.read_text() for path in self.folder.glob("*.out")])

    def kill(self, role: str) -> None:
        self.processes[role].send_signal(signal.SIGKILL)
        self.processes[role].wait(30)

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for role, process in self.processes.items():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)
                pytest.fail(f"{role} did not stop: {self.logs()}")


def running(folder: Path, toml: str = "") -> Iterator[Service]:
    one = Service(folder, toml)
    try:
        one.start("hub")
        one.start("exporter")
        one.ready()
        yield one
    finally:
        one.stop()


@pytest.fixture
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Hub and exporter of one test; parametrise indirectly with lines of config.toml."""
    yield from running(tmp_path, request.param)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Hub and exporter with the default settings, for all tests of a module that need no others."""
    yield from running(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def feed(request: pytest.FixtureRequest) -> Iterator[Feed]:
    """Frames for the exporter that this test uses."""
    which: Service = request.getfixturevalue("service" if "service" in request.fixturenames else "shared")
    one = Feed(which.settings, "cam0", geometry("yuv420p", 640, 360), 64)
    yield one
    one.close()
