"""What the analyzer costs per frame, in-process and as a process; its memory; how often simulated days switch."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from analyzer.frame_analyzer import FrameAnalyzer
from analyzer.loop import Analyzer, analyze_frame, settings_of
from analyzer.scores_writer import ScoresWriter
from bench.measure import Measured, Outcome, Row, Table, compared, paired, timed_us
from shm_ring import FrameMeta, LiveRing, RingWriter
from shm_ring.formats import geometry
from shm_ring.records.scores import SCORE
from shmcam.config.settings import Settings

SHAPE = geometry("yuv420p", 1920, 1080)
SLOTS = 8
FPS = 30

ROWS = (
    Row(
        "per_frame", "x", 1.5, "everything done with a 1080p frame / one pass over its luma plane (numpy's mean, as v1)"
    ),
    Row("per_frame_copy", "x", None, "the same / a bare copy of the luma plane"),
    Row(
        "process_cpu",
        "x",
        1.5,
        f"CPU time of a real analyzer at {FPS} fps / of a process that does one such pass per frame, side by side",
    ),
    Row("rss_growth", "MB", 1.0, "resident memory of that process, from the 300th frame on"),
    Row("rss", "MB", None, "its resident memory"),
    Row("night_switches", "", 5, "most switches of any simulated day, 8 scenarios (3 are right)"),
    Row("first_service_switches", "", None, "fewest switches of the first service's logic on the same days"),
)


ONE_PASS = """
import sys
from shm_ring import LiveRing
with LiveRing(sys.argv[1]) as ring:
    for found in ring.sequences(newest_first=True):
        if found:
            with found[0].borrow(found[1]) as frame:
                frame.luma.mean()
"""


class World:
    """A ring with 1080p frames, and a folder with a config.toml for it."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.prefix = f"bench{uuid.uuid4().hex[:8]}"
        self.config = self.root / "config.toml"
        self.config.write_text(f'[ring]\nprefix = "{self.prefix}"\n[camera]\nsource = "synthetic"\n')
        self.settings = Settings.load(self.config, environ={})
        (self.root / "run").mkdir()
        self.writer = self.ring("main", SLOTS, SHAPE.payload_bytes)
        rng = np.random.default_rng(1)
        base = rng.integers(20, 200, SHAPE.payload_bytes, np.uint8)
        self.frames = [base + rng.integers(0, 6, base.size, np.uint8) for _ in range(4)]
        self.count = 0

    def ring(self, stream: str, slots: int, payload_bytes: int) -> RingWriter:
        return RingWriter.create(
            f"/{self.prefix}.cam0.{stream}",
            slots=slots,
            payload_bytes=payload_bytes,
            lock_dir=self.root / "run",
            camera="cam0",
            stream=stream,
        )

    def publish(self) -> None:
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        meta = FrameMeta(self.count, now_ns, time.time_ns(), 10_000, 2.0, lux=400.0, frame_duration_us=33_333)
        self.writer.publish(self.frames[self.count % 4], meta, SHAPE)
        self.count += 1


class NoControl:
    """A hub that is not there."""

    def announce(self, event: object) -> None:
        """Forget it."""


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Yield every figure."""
    world = World()
    with world.writer:
        yield from _in_process(world, quick)
        yield from _process(world, 4 if quick else 30)
    yield from _days(1 if quick else 5)


def _in_process(world: World, quick: bool) -> Iterator[tuple[str, Outcome]]:
    with (
        world.ring("scores", 64, SCORE.itemsize) as scores,
        LiveRing(world.writer.name) as ring,
        contextlib.ExitStack() as stack,
    ):
        analyzer = _analyzer(world, scores, stack)
        for _ in range(SLOTS):
            world.publish()
        reader = ring.reader()
        turn = iter(range(10**9))
        clock = iter(range(10**9))

        def analyse() -> None:
            # The oldest half of the ring: what was copied longest ago is what a real analyzer finds in no cache.
            analyze_frame(reader, world.count - SLOTS + 1 + next(turn) % (SLOTS - 1), analyzer)

        def luma() -> np.typing.NDArray[np.uint8]:
            with reader.borrow(world.count - SLOTS + 1 + next(clock) % (SLOTS - 1)) as frame:
                return frame.luma

        target = np.empty((1080, 1920), np.uint8)
        times = 40 if quick else 200
        figures = paired(
            {
                "analyzer": partial(timed_us, analyse, times),
                "mean": partial(timed_us, lambda: luma().mean(), times),
                "copy": partial(timed_us, lambda: np.copyto(target, luma()), times),
            },
            5 if quick else 11,
        )
    yield "per_frame", compared(figures, "analyzer", "mean")
    yield "per_frame_copy", compared(figures, "analyzer", "copy")


def _analyzer(world: World, scores: RingWriter, stack: contextlib.ExitStack) -> Analyzer:
    from analyzer.keogram.daily_keogram import KeogramKeeper
    from analyzer.plugins.host import Plugins
    from analyzer.settings import AnalyzerSettings

    own = world.settings.table(AnalyzerSettings, "cam0")
    plugins = stack.enter_context(Plugins(own, world.writer.name, world.root))
    keogram = stack.enter_context(KeogramKeeper(own, world.settings.paths, "cam0"))
    frames = FrameAnalyzer(*settings_of(world.settings, "cam0"))
    return Analyzer("cam0", world.settings, frames, ScoresWriter(scores), NoControl(), plugins, keogram)  # type: ignore[arg-type]


def _process(world: World, seconds: float) -> Iterator[tuple[str, Outcome]]:
    ours = subprocess.Popen([sys.executable, "-m", "analyzer", "--config", str(world.config)])
    theirs = subprocess.Popen([sys.executable, "-c", ONE_PASS, world.writer.name])
    children = (ours, theirs)
    try:
        _feed(world, 10.0)  # imports, first frames
        first = [_usage(child.pid) for child in children]
        frames = _feed(world, seconds)
        last = [_usage(child.pid) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
        _forget_scores(world)
    cpu_us, pass_us = ((end[0] - begin[0]) / frames * 1e6 for begin, end in zip(first, last, strict=True))
    yield "process_cpu", Measured(cpu_us / pass_us, f"{frames} frames: analyzer {cpu_us:.0f} µs, pass {pass_us:.0f} µs")
    yield "rss_growth", Measured((last[0][1] - first[0][1]) / 1e6, f"over {frames} frames")
    yield "rss", Measured(last[0][1] / 1e6)


def _forget_scores(world: World) -> None:
    """A killed analyzer leaves its ring as a black box; here nobody wants it."""
    with world.ring("scores", 1024, SCORE.itemsize):
        pass


def _feed(world: World, seconds: float) -> int:
    """Publish at FPS by absolute deadlines. Returns how many."""
    began, number = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        world.publish()
        number += 1
        time.sleep(max(0.0, began + number / FPS - time.monotonic()))
    return number


def _usage(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * resource.getpagesize()


def _days(seeds: int) -> Iterator[tuple[str, Outcome]]:
    from analyzer.settings import NightSettings
    from bench.night.days import SCENARIOS, simulate, table

    days = simulate(list(SCENARIOS), range(seeds), NightSettings(min_dark_frames=3))
    detail = f"{len(days)} days; python -m bench.night.days runs {20 * len(SCENARIOS)}"
    yield (
        "night_switches",
        Measured(max(day.count for day in days), detail, {"simulated days": cast("Table", table(days))}),
    )
    yield (
        "first_service_switches",
        Measured(min(len(day.first_service) for day in days), "plain mean, 40/80, 10 frames"),
    )
