"""How the ring grows: readers, slots, frame sizes, rates. Curves, not points; the bounds say what must stay flat."""

from __future__ import annotations

import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.areas.ring.ring import lent
from bench.areas.ring.ring_peers import run_once
from bench.measure import Json, Measured, Outcome, Row, Table, timed_us
from shm_ring import FrameMeta, RingReader, RingWriter
from shm_ring.formats import Geometry, geometry

SMALL = geometry("yuv420p", 160, 120)
READERS = (1, 2, 4, 8, 16, 32)
SLOTS = (2, 4, 16, 64, 256, 1024, 4096)
SIZES = ((160, 120), (320, 240), (640, 480), (1280, 720), (1920, 1080), (2592, 1944), (4056, 3040))
RATES = (1, 5, 15, 30, 60, 120, 240)

ROWS = (
    Row("readers_delivered", "share", 0.99, "frames that each of 32 readers got, 160x120 at 30 fps", "higher"),
    Row("slots_publish", "x", 1.5, "publish 1000 bytes into 4096 slots / into 16: cache misses, no search"),
    Row("slots_window", "µs", 500, "window(t0, t1) over 4096 slots: a search, not a scan"),
    Row("size_borrow", "x", 1.3, "borrow and verify a 4056x3040 frame / a 160x120 one: no copy"),
    Row("rate_delivered", "share", 0.99, "frames that a reader got at 240 fps, 160x120", "higher"),
)


def make(folder: str, shape: Geometry, slots: int) -> RingWriter:
    """Make a ring that goes with the block."""
    return RingWriter.create(
        f"/bench{uuid.uuid4().hex[:8]}.cam0.main",
        slots=slots,
        payload_bytes=shape.payload_bytes,
        lock_dir=Path(folder),
        camera="cam0",
        stream="main",
    )


def median_us(action: object, times: int) -> float:
    """Median of five runs."""
    assert callable(action)
    return statistics.median(timed_us(action, times) for _ in range(5))


def by_readers(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """More readers: one system call wakes all of them, but each must get a CPU."""
    lines: Table = []
    for readers in READERS[:3] if quick else READERS:
        run = run_once("shm_ring", SMALL.payload_bytes, readers, 30, 1 if quick else 3)
        line: dict[str, Json] = {"readers": readers, "publish_us": round(run.publish_us, 1)}
        lines.append(line | {"wake_p50_us": round(run.commit_p50_us, 1), "wake_p99_us": round(run.commit_p99_us, 1)})
    yield "readers_delivered", Measured(run.delivered, f"with {readers} readers", {"curve: readers": lines})


def by_slots(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """More slots: history, not work."""
    lines: Table = []
    publish: dict[int, float] = {}
    frame, times = np.zeros(1000, np.uint8), 500 if quick else 5000
    for slots in SLOTS:
        with tempfile.TemporaryDirectory() as folder, make(folder, SMALL, slots) as writer:
            for number in range(slots):
                writer.publish(frame, FrameMeta(number, number, number))
            publish[slots] = median_us(lambda w=writer: w.publish(frame, FrameMeta(1, w.head, 1)), times)
            started = time.perf_counter()
            with RingReader.open(writer.name) as reader:
                open_us = (time.perf_counter() - started) * 1e6
                middle = reader.head - slots // 2
                window_us = median_us(lambda r=reader, m=middle: r.window(m, m + 30), 200)
        line: dict[str, Json] = {"slots": slots, "publish_us": round(publish[slots], 2)}
        lines.append(line | {"open_us": round(open_us, 1), "window_us": round(window_us, 1)})
    yield "slots_publish", Measured(publish[4096] / publish[16], "medians of 5 runs", {"curve: slots": lines})
    yield "slots_window", Measured(window_us, "30 frames out of the middle of 4096 slots")


def by_size(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Larger frames: the copy grows, borrowing does not."""
    lines: Table = []
    borrow: list[float] = []
    for width, height in SIZES:
        shape = geometry("yuv420p", width, height)
        frame = np.random.default_rng(0).integers(0, 255, shape.payload_bytes, np.uint8)
        times = max(20, (20 if quick else 200) * 3_000_000 // shape.payload_bytes // 10)
        with tempfile.TemporaryDirectory() as folder, make(folder, shape, 4) as writer:
            meta, targets = FrameMeta(1, 1, 1), lent(writer)
            copy_us = median_us(lambda f=frame.data, t=targets: copy_all(f, t), times)
            publish_us = median_us(lambda w=writer, f=frame, m=meta, s=shape: w.publish(f, m, s), times)
            with RingReader.open(writer.name) as reader:
                borrow.append(median_us(lambda r=reader: look(r), 2000))
            del targets
        line: dict[str, Json] = {"megapixels": round(width * height / 1e6, 3), "copy_us": round(copy_us / 4, 1)}
        lines.append(line | {"publish_us": round(publish_us, 1), "borrow_us": round(borrow[-1], 2)})
    yield (
        "size_borrow",
        Measured(borrow[-1] / borrow[0], f"{borrow[-1]:.2f} µs / {borrow[0]:.2f} µs", {"curve: size": lines}),
    )


def copy_all(frame: memoryview, targets: list[memoryview]) -> None:
    """Copy one frame into each slot."""
    for target in targets:
        target[:] = frame


def look(reader: RingReader) -> None:
    """Borrow the newest frame, make its payload view, verify."""
    with reader.borrow(reader.head - 1) as frame:
        frame.payload  # noqa: B018 - the view is what is timed


def by_rate(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Faster cameras: the longer a CPU has slept, the later it wakes."""
    lines: Table = []
    for fps in RATES[3:] if quick else RATES:
        run = run_once("shm_ring", SMALL.payload_bytes, 1, fps, max(2, 15 / fps) if not quick else 1)
        line: dict[str, Json] = {"fps": fps, "wake_p50_us": round(run.commit_p50_us, 1)}
        lines.append(line | {"wake_p99_us": round(run.commit_p99_us, 1), "publish_us": round(run.publish_us, 1)})
    yield "rate_delivered", Measured(run.delivered, f"at {fps} fps", {"curve: rate": lines})


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Measure all curves."""
    yield from by_readers(quick)
    yield from by_slots(quick)
    yield from by_size(quick)
    yield from by_rate(quick)
