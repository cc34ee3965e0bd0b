"""The ring on its own: publish, loan, borrow, fences, paced publish with sleeping readers. Bounds of issues 2 and 9."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from bench.measure import Measured, Outcome, Row, compared, paired, timed_us
from shm_ring import FrameMeta, RingReader, RingWriter
from shm_ring.formats import Geometry, geometry

FRAMES = {
    "1080p_yuv420p": geometry("yuv420p", 1920, 1080),
    "1080p_bgr24": geometry("bgr24", 1920, 1080),
    "xga_yuv420p": geometry("yuv420p", 1024, 768),
}
SLOTS = 4  # as the prototype's figures
SOURCES = 4  # frames to copy from in turn, so that the source is as cold as the target
READERS = 3
PACED_FPS = 120
META = FrameMeta(1, 1, 1, 8000, 2.0, frame_duration_us=8333)

ROWS = (
    Row("publish_1080p_yuv420p", "x", 1.03, "publish without fences / bare copy into the same slots, hot loop"),
    Row("publish_1080p_bgr24", "x", 1.03, "the same, 1080p bgr24"),
    Row("publish_xga_yuv420p", "x", 1.05, "the same, 1024x768 yuv420p"),
    Row("wake_1080p_yuv420p", "x", None, "copy and one futex call that wakes nobody / bare copy: the least there is"),
    Row("wake_1080p_bgr24", "x", None, "the same, 1080p bgr24"),
    Row("wake_xga_yuv420p", "x", None, "the same, 1024x768 yuv420p"),
    Row("publish_fenced_1080p_yuv420p", "x", 1.04, "publish with libatomic's fences / bare copy"),
    Row("publish_fenced_1080p_bgr24", "x", 1.035, "the same, 1080p bgr24"),
    Row("publish_fenced_xga_yuv420p", "x", 1.06, "the same, 1024x768 yuv420p"),
    Row("publish_extra_1080p_yuv420p", "µs", 6.5, "publish - bare copy: what a prototype of 150 lines needed"),
    Row("publish_extra_1080p_bgr24", "µs", 12.0, "the same, 1080p bgr24"),
    Row("publish_extra_xga_yuv420p", "µs", 4.4, "the same, 1024x768: where a copy takes 20 µs a ratio says little"),
    Row(
        "publish_paced_extra",
        "µs",
        50,
        f"publish - bare copy, 1080p, {PACED_FPS} fps, {READERS} readers asleep",
    ),
    Row("publish_paced_wake", "µs", None, "of it the one system call that wakes them: what no language can save"),
    Row("loan", "µs", None, "an empty writer.slot() block at 1080p: what a frame costs that is written in place"),
    Row("loan_size_ratio", "x", 1.25, "loan of a 12 MP slot / loan of a 160x120 slot: independent of the frame's size"),
    Row("borrow_verify", "µs", 10, "borrow a 1080p frame, make its views, verify"),
    Row("borrow_fenced", "µs", 10, "the same with fences"),
)


def lent(writer: RingWriter) -> list[memoryview]:
    """Borrow every slot's memory once and keep it: what a bare copy writes to."""
    targets = []
    for _ in range(writer.slots):
        with writer.slot() as slot:
            slot.meta = META
            targets.append(slot.payload.data)
    return targets


class Bench:
    """A ring in a folder of its own, with a publisher and a bare copy that walk the same slots."""

    def __init__(self, geometry: Geometry, *, fenced: bool = False) -> None:
        self.name = f"/bench{uuid.uuid4().hex[:8]}.cam0.main"
        self.geometry = geometry
        self._folder = tempfile.TemporaryDirectory()
        size = geometry.payload_bytes
        self.writer = RingWriter.create(
            self.name,
            slots=SLOTS,
            payload_bytes=size,
            lock_dir=Path(self._folder.name),
            camera="cam0",
            stream="main",
            force_fences=fenced,
        )
        noise = np.random.default_rng(0).integers(0, 255, size, np.uint8)
        self._frames = [np.roll(noise, k).copy() for k in range(SOURCES)]
        self._targets = lent(self.writer)
        self._views = [frame.data for frame in self._frames]
        self._bare = self._published = 0
        self._wake = self.writer._wake  # the futex call alone

    def bare(self) -> None:
        """Copy one frame and do nothing else."""
        self._targets[self._bare % SLOTS][:] = self._views[self._bare % SOURCES]
        self._bare += 1

    def waking(self) -> None:
        """Copy one frame and wake whoever sleeps."""
        self.bare()
        self._wake()

    def publish(self) -> None:
        """Publish one frame."""
        self.writer.publish(self._frames[self._published % SOURCES], META, self.geometry)
        self._published += 1

    def loan(self) -> None:
        """Publish one frame that is already there."""
        with self.writer.slot() as slot:
            slot.meta, slot.geometry = META, self.geometry

    def close(self) -> None:
        """Leave nothing behind."""
        self._targets.clear()
        self.writer.retire()
        self._folder.cleanup()


BLOCK = 8 * SLOTS  # calls in a row: each subject then finds the caches as its own last frames left them


def in_blocks_us(subjects: dict[str, Callable[[], None]], times: int) -> dict[str, float]:
    """Call the subjects block by block in turn and return each one's median duration: drift hits all alike.

    Call by call would not be fair: with a ring about as large as the last-level cache, whoever comes second to a slot
    finds it warm. The first half of each block only restores the caches.
    """
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    clock = time.perf_counter
    for _ in range(max(1, times * 2 // BLOCK)):
        for name, subject in subjects.items():
            for call in range(BLOCK):
                started = clock()
                subject()
                if call >= BLOCK // 2:
                    samples[name].append(clock() - started)
    return {name: statistics.median(values) * 1e6 for name, values in samples.items()}


def publish_rows(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Hot loop, no reader: what the protocol adds to the copy."""
    for label, shape in FRAMES.items():
        for prefix, fenced in (("publish", False), ("publish_fenced", True)):
            bench = Bench(shape, fenced=fenced)
            subjects = {"copy": bench.bare, "publish": bench.publish, "wake": bench.waking}
            figures: dict[str, list[float]] = {name: [] for name in subjects}
            for _ in range(3 if quick else 9):
                medians = in_blocks_us(subjects, 50 if quick else 400)
                for name, value in medians.items():
                    figures[name].append(value)
            bench.close()
            yield f"{prefix}_{label}", compared(figures, "publish", "copy")
            if not fenced:
                yield f"wake_{label}", compared(figures, "wake", "copy")
                extra = [ours - bare for ours, bare in zip(figures["publish"], figures["copy"], strict=True)]
                yield (
                    f"publish_extra_{label}",
                    Measured(statistics.median(extra), f"{min(extra):.2f} … {max(extra):.2f}"),
                )


def sleeper(name: str) -> None:
    """Wait for frames as a reader does, in a process of its own."""
    with RingReader.open(name) as reader:
        position = reader.head
        while not reader.retired:
            if reader.wait(position, 0.5):
                position = reader.head


def paced_row(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Cold caches and sleeping readers: what the camera loop really pays."""
    bench = Bench(FRAMES["1080p_yuv420p"])
    spawn = multiprocessing.get_context("spawn")
    readers = [spawn.Process(target=sleeper, args=(bench.name,), daemon=True) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    time.sleep(2)
    turns = {"copy": bench.bare, "publish": bench.publish, "wake": bench.waking}
    extra: dict[str, list[float]] = {"publish": [], "wake": []}
    for _ in range(3 if quick else 7):
        samples: dict[str, list[float]] = {name: [] for name in turns}
        due_s = time.perf_counter()
        for name in list(turns) * (30 if quick else 100):
            due_s += 1 / PACED_FPS
            time.sleep(max(0.0, due_s - time.perf_counter()))
            started = time.perf_counter()
            turns[name]()
            samples[name].append(time.perf_counter() - started)
        for name, runs in extra.items():
            runs.append((statistics.median(samples[name]) - statistics.median(samples["copy"])) * 1e6)
    copy_us = statistics.median(samples["copy"]) * 1e6
    bench.close()
    for reader in readers:
        reader.join(5)
    for row, runs in (("publish_paced_extra", extra["publish"]), ("publish_paced_wake", extra["wake"])):
        spread = f"{min(runs):.1f} … {max(runs):.1f} µs"
        yield row, Measured(statistics.median(runs), f"{len(runs)} runs {spread}; copy {copy_us:.0f} µs")


def loan_rows(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """The loan path copies nothing, so the size of the frame must not matter."""
    times = 500 if quick else 5000
    benches = {
        "1080p": Bench(FRAMES["1080p_yuv420p"]),
        "12MP": Bench(geometry("yuv420p", 4056, 3040)),
        "160x120": Bench(geometry("yuv420p", 160, 120)),
    }
    figures = paired({name: partial(timed_us, bench.loan, times) for name, bench in benches.items()}, 7)
    for bench in benches.values():
        bench.close()
    middle = statistics.median(figures["1080p"])
    yield "loan", Measured(middle, f"median of {len(figures['1080p'])} runs of {times}")
    yield "loan_size_ratio", compared(figures, "12MP", "160x120")


def borrow_rows(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """What a reader pays for a verified zero-copy look."""
    bench = Bench(FRAMES["1080p_yuv420p"])
    bench.publish()
    for row, fenced in (("borrow_verify", False), ("borrow_fenced", True)):
        reader = RingReader.open(bench.name, force_fences=fenced)

        def borrow(reader: RingReader = reader, newest: int = reader.head - 1) -> None:
            with reader.borrow(newest) as frame:
                frame.planes  # noqa: B018 - the views are what is timed

        runs = [timed_us(borrow, 500 if quick else 5000) for _ in range(7)]
        reader.close()
        yield row, Measured(statistics.median(runs), f"{min(runs):.2f} … {max(runs):.2f} µs with payload and planes")
    bench.close()


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Measure all rows."""
    yield from publish_rows(quick)
    yield from paced_row(quick)
    yield from loan_rows(quick)
    yield from borrow_rows(quick)
