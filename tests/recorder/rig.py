"""A recorder under test: its own ring of self-numbering frames, config and process; and independent readers."""

from __future__ import annotations

import csv
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import tomlkit

from shm_ring import Flags, FrameMeta, RingWriter, segment_name
from shm_ring.formats import geometry, planes
from shmcam.control.call import call
from shmcam.control.messages import Reply
from shmcam.imaging import frame_number_code
from shmcam.runtime.clock import now_ns
from tests.machine import until
from tests.programs import Program

ROOT = Path(__file__).parents[2]
PERIOD_NS = 33_333_333
TOLD_LATE = 60
"""Frames that may be recorded beyond the end where a busy machine passes the news of it on late."""


class Camera:
    """Publishes synthetic frames whose number can be read back from the pixels."""

    def __init__(
        self,
        folder: Path,
        prefix: str,
        name: str = "cam0",
        *,
        size: tuple[int, int] = (640, 360),
        slots: int = 64,
        pixel_format: str = "yuv420p",
        payload_bytes: int | None = None,
        noise: int = 0,
    ) -> None:
        self.geometry = geometry(pixel_format, *size)
        self.name, self.prefix, self.folder, self.slots = name, prefix, folder, slots
        self.writer = RingWriter.create(
            segment_name(prefix, name, "main"),
            slots=slots,
            payload_bytes=payload_bytes or self.geometry.payload_bytes,
            lock_dir=folder / "run",
            camera=name,
            stream="main",
        )
        self.published: list[FrameMeta] = []
        self.next_id = self.writer.next_frame_id
        self.dropped = 0
        self.clock_set_ns = 0
        """By how much somebody set the wall clock."""
        self.ahead_ns = 0
        """By how much the frames' times are ahead of the clock."""
        self.held = False
        self._ended, self._thread = threading.Event(), None
        self.rng = np.random.default_rng(7)
        self.noise = noise
        self._base = np.full(self.geometry.payload_bytes, 128, np.uint8)
        luma = planes(self._base, self.geometry)[0]
        luma[:] = (np.add.outer(np.arange(luma.shape[0]), np.arange(luma.shape[1])) % 200 + 20).astype(np.uint8)

    def publish(
        self, captured_ns: int | None = None, *, dropped: int = 0, period_ns: int = PERIOD_NS, night: bool = False
    ) -> FrameMeta:
        self.dropped += dropped
        captured_ns = captured_ns or now_ns() + self.ahead_ns
        meta = FrameMeta(
            self.next_id,
            captured_ns,
            captured_ns + time.time_ns() - now_ns() + self.clock_set_ns,
            frame_duration_us=period_ns // 1000,
            flags=int(Flags.NIGHT) if night else 0,
            dropped_before=dropped,
            total_dropped=self.dropped,
        )
        with self.writer.slot() as slot:
            slot.payload[: self._base.size] = self._base
            luma = planes(slot.payload, self.geometry)[0]
            if self.noise:
                rows = luma[luma.shape[0] // 2 :]
                rows[:] = self.rng.integers(128 - self.noise, 128 + self.noise, rows.shape, np.uint8)
            luma[40:60, (self.next_id * 7) % max(1, luma.shape[1] - 20) :][:, :20] = 235
            frame_number_code.draw(luma, self.next_id)
            slot.meta, slot.geometry = meta, self.geometry
        self.next_id += 1
        self.published.append(meta)
        return meta

    def run(self, seconds: float, fps: float = 30.0) -> None:
        """In real time."""
        start = time.monotonic()
        for number in range(round(seconds * fps)):
            time.sleep(max(0.0, start + number / fps - time.monotonic()))
            self.publish(period_ns=int(1e9 / fps))

    def begin_filming(self, fps: float = 30.0) -> None:
        """Publishes in real time, in a thread, until the camera is closed; not while it is `held`."""

        def film() -> None:
            start, number = time.monotonic(), 0
            while not self._ended.wait(max(0.0, start + number / fps - time.monotonic())):
                if not self.held:
                    self.publish(period_ns=int(1e9 / fps))
                number += 1

        self._thread = threading.Thread(target=film, daemon=True)
        self._thread.start()

    def wait_frames(self, count: int) -> None:
        """Waits until so many frames more are published by the thread."""
        wanted = len(self.published) + count
        until(lambda: len(self.published) >= wanted, count / 10, "frames of the camera")

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.writer.retire()


class Rig:
    """One folder, one prefix, recorders as real processes."""

    def __init__(self, folder: Path, **recorder: Any) -> None:
        self.folder = folder
        self.environ = dict(os.environ)
        self.prefix = f"t{secrets.token_hex(4)}"
        self.recordings = folder / "recordings"
        (folder / "run").mkdir(exist_ok=True)
        self.tables: dict[str, Any] = {
            "ring": {"prefix": self.prefix},
            "recorder": {"threads": 1, **recorder},
            "library": {"free_reserve_mb": 1, "free_reserve_percent": 0},
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.cameras: list[Camera] = []
        self.hub: subprocess.Popen[bytes] | None = None
        self.write_config()

    def write_config(self, **tables: Any) -> None:
        self.tables |= tables
        (self.folder / "config.toml").write_text(tomlkit.dumps(self.tables))

    def camera(self, name: str = "cam0", **more: Any) -> Camera:
        camera = Camera(self.folder, self.prefix, name, **more)
        self.cameras.append(camera)
        return camera

    def start(self, camera: str = "cam0", module: str = "recorder", *arguments: str) -> subprocess.Popen[bytes]:
        environ = {key: value for key, value in self.environ.items() if not key.startswith("SHMCAM_")}
        command = [sys.executable, "-m", module, "--config", str(self.folder / "config.toml")]
        if module == "recorder":
            command += ["--camera", camera]
        process = Program([*command, *arguments], cwd=ROOT, env=environ, stdin=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def start_hub(self) -> None:
        self.hub = self.start(module="shmcam.hub")
        until(lambda: call(self.socket, "ping", 2).ok, 20, "hub\n" + self.log("hub"))

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "control.sock"

    def ask(self, line: str, seconds: float = 20) -> Reply:
        return call(self.socket, line, seconds)

    def recorded(self, frames: int) -> Reply:
        """Waits until the recording has so many frames. Returns: what `record status` said."""

        def status() -> Reply | None:
            reply = self.ask("record status")
            return reply if reply.data.get("frames", 0) >= frames else None

        return until(status, 20, self.log)

    def answers(self, count: int = 1) -> None:
        """Until the recorders take commands."""
        until(lambda: self.ask("record status").status != "not_running", 20, self.log())

    def log(self, name: str = "recorder") -> str:
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def ready(self, name: str = "recorder", times: int = 1) -> None:
        until(lambda: self.log(name).count("ready mode=") >= times, 60, "recorder ready\n" + self.log(name))

    def resumes(self, times: int) -> None:
        """Until the recorder that was started as the `times`-th goes on with the recording."""
        self.ready(times=times)
        self.answers()
        until(lambda: self.ask("record status").status == "recording", 10, self.log)

    def clips(self, pattern: str = "*.mp4") -> list[Path]:
        return sorted(path for path in self.recordings.rglob(pattern))

    def written(self, frames: int, seconds: float = 30) -> None:
        """Until so many frames have gone into files, by their timing lines."""

        def lines() -> int:
            return sum(self._lines(path) for path in self.clips("*_frame_timing.csv*"))

        until(lambda: lines() >= frames, seconds, self.log())

    @staticmethod
    def _lines(path: Path) -> int:
        try:
            return path.read_bytes().count(b"\n") - 1
        except FileNotFoundError:  # it has just got its name
            return 0

    def stop(self, process: subprocess.Popen[bytes], seconds: float = 45) -> int:
        process.send_signal(signal.SIGTERM)
        return process.wait(seconds)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for camera in self.cameras:
            camera.close()
        for left in Path("/dev/shm").glob(f"{self.prefix}.*"):
            left.unlink()


def decoded(path: Path) -> Iterator[tuple[int, int | None]]:
    """(pts in µs, number read from the pixels) of each picture that plays; a torn tail ends it, like in any player."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        packets = file.demux(stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except av.FFmpegError:
                frames = stream.codec_context.decode(None)
                for frame in frames:
                    yield _number(frame)
                return
            for frame in frames:
                yield _number(frame)


def _number(frame: av.VideoFrame) -> tuple[int, int | None]:
    plane = frame.planes[0]
    luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
    pts_us = round(float(frame.pts * frame.time_base) * 1e6) if frame.pts is not None else -1
    return pts_us, frame_number_code.read(luma)


def numbers(path: Path) -> list[int | None]:
    return [number for _, number in decoded(path)]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def timing_of(clip: Path) -> Path:
    return clip.with_name(clip.stem + "_frame_timing.csv")


def check_clip(clip: Path, camera: Camera, *, drops: int = 0) -> list[int]:
    """Numbers in the pixels are the ring's, in order; times are the sensor's; the CSV agrees. Returns: numbers."""
    found = list(decoded(clip))
    ids = [number for _, number in found]
    assert ids and None not in ids, (clip, ids)
    metas = {meta.frame_id: meta for meta in camera.published}
    assert ids == sorted(set(ids)), ids
    base_ns = metas[ids[0]].captured_ns
    worst_us = max(abs(pts - (metas[number].captured_ns - base_ns) / 1000) for pts, number in found)
    assert worst_us <= (1.0 if clip.suffix == ".mp4" else 501.0), worst_us
    if timing_of(clip).exists():
        lines = rows(timing_of(clip))
        assert [int(line["frame_number"]) for line in lines] == ids
        assert [int(line["sensor_timestamp_ns"]) for line in lines] == [metas[number].captured_ns for number in ids]
        assert sum(int(line["dropped_since_last"]) for line in lines) == drops
    return ids
