"""`shmcam pipe` against a program that does nothing but write the same bytes into a pipe at the same rate."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from bench.measure import Measured, Outcome, Row
from shm_ring import FrameMeta, RingWriter
from shm_ring.formats import geometry

FPS = 30
SHAPE = geometry("yuv420p", 1920, 1080)
SLOTS = 16

BARE = """
import os, sys, time, fcntl
data, due = bytes(int(sys.argv[1])), time.monotonic()
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
while True:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
    due += 1 / 30
    time.sleep(max(0.0, due - time.monotonic()))
"""

ROWS = (
    Row("cpu_ratio", "x", 4.0, "CPU of shmcam pipe, 1080p30 rawvideo / bare writes of the same bytes"),
    Row("cpu_share", "%", None, "CPU of shmcam pipe, 1080p30 rawvideo, of one core"),
    Row("mjpeg_cpu_share", "%", None, "the same as mjpeg at 1280 pixels and 10 frames a second"),
    Row("rss", "MB", None, "its memory, without the ring"),
)


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    seconds, runs = (2.0, 1) if quick else (6.0, 5)
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"bench{uuid.uuid4().hex[:8]}"
        config = Path(folder) / "config.toml"
        config.write_text(f'[ring]\nprefix = "{prefix}"\n')
        pipe = [sys.executable, "-m", "shmcam.cli.main", "pipe", "--config", str(config)]
        bare = [sys.executable, "-c", BARE, str(SHAPE.payload_bytes)]
        with RingWriter.create(
            f"/{prefix}.cam0.main",
            slots=SLOTS,
            payload_bytes=SHAPE.payload_bytes,
            lock_dir=Path(folder) / "run",
            camera="cam0",
            stream="main",
        ) as ring:
            done = threading.Event()
            thread = threading.Thread(target=_publish, args=(ring, done), daemon=True)
            thread.start()
            ours, theirs, rss_mb = [], [], 0.0
            for _ in range(runs):  # in turns: what else the machine does falls on both
                share, rss_mb = _cpu_share([*pipe, "--format", "rawvideo"], seconds)
                ours.append(share)
                theirs.append(_cpu_share(bare, seconds)[0])
            mjpeg = _cpu_share([*pipe, "--format", "mjpeg", "--fps", "10", "--size", "1280x720"], seconds)[0]
            done.set()
            thread.join()
    detail = f"{statistics.median(ours):.1f} % / {statistics.median(theirs):.1f} %, {runs} runs"
    yield "cpu_ratio", Measured(statistics.median(ours) / statistics.median(theirs), detail)
    yield "cpu_share", Measured(statistics.median(ours), detail)
    yield "mjpeg_cpu_share", Measured(mjpeg)
    yield "rss", Measured(rss_mb)


def _publish(ring: RingWriter, done: threading.Event) -> None:
    payload, number = np.zeros(SHAPE.payload_bytes, np.uint8), 0
    while not done.wait(1 / FPS):
        number += 1
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        ring.publish(payload, FrameMeta(number, now_ns, time.time_ns(), frame_duration_us=33_333), SHAPE)


def _cpu_share(command: list[str], seconds: float) -> tuple[float, float]:
    """Returns the percent of a core that a program takes while its pipe is read, and its private memory in MB."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        begun_s, before_s, process_ = 0.0, 0.0, psutil.Process(process.pid)
        while not begun_s or time.monotonic() - begun_s < seconds:
            process.stdout.read(SHAPE.payload_bytes // 100)
            if not begun_s:
                begun_s, before_s = time.monotonic(), _cpu_s(process_)
        share = 100 * (_cpu_s(process_) - before_s) / (time.monotonic() - begun_s)
        memory = process_.memory_info()
        process.kill()
    return share, (memory.rss - memory.shared) / 1e6


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
