"""The ring against what a Python user could take instead, in one run: latency, CPU, delivery, a killed reader."""

from __future__ import annotations

import importlib
import os
import signal
import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from bench.measure import Json, Measured, Outcome, Row, Skipped, Table, compared, percentile
from bench.peers import messaging, pypi
from bench.peers.messaging import SPAWN, Sender
from shm_ring.formats import geometry

PEERS: dict[str, tuple[str, type[Any], type[Any]]] = {
    "shm_ring": ("posix_ipc", messaging.RingSender, messaging.RingTaker),
    "iceoryx2": ("iceoryx2", messaging.Iceoryx2Sender, messaging.Iceoryx2Taker),
    "zmq": ("zmq", messaging.ZmqSender, messaging.ZmqTaker),
    "queue": ("multiprocessing", messaging.QueueSender, messaging.QueueTaker),
    "pipe": ("multiprocessing", messaging.PipeSender, messaging.PipeTaker),
    "condition": ("multiprocessing", messaging.ConditionSender, messaging.ConditionTaker),
    "pyshmem": ("pyshmem", pypi.PyshmemSender, pypi.PyshmemTaker),
    "zerochannel": ("zerochannel", pypi.ZerochannelSender, pypi.ZerochannelTaker),
    "zenoh": ("zenoh", pypi.ZenohSender, pypi.ZenohTaker),
}
"""Name → module that must be there, writing end, reading end."""

SIZES = {
    "xga_yuv420p": geometry("yuv420p", 1024, 768).payload_bytes,
    "1080p_yuv420p": geometry("yuv420p", 1920, 1080).payload_bytes,
    "1080p_bgr24": geometry("bgr24", 1920, 1080).payload_bytes,
}
PAIRS = 7  # alternating runs for the judged ratios
KILLS = 20

ROWS = (
    Row("latency_p50_vs_iceoryx2", "x", 0.7, "commit to pointer p50, 1080p yuv420p, 120 fps, 1 reader / iceoryx2's"),
    Row("latency_p99_vs_iceoryx2", "x", 0.7, "the same, p99"),
    Row("reader_cpu_vs_iceoryx2", "x", 0.8, "reader's CPU per frame / iceoryx2's"),
    Row("call_vs_queue", "x", 10, "multiprocessing.Queue's time from call to pointer / the ring's", "higher"),
    Row("call_vs_zmq", "x", 1.5, "pyzmq's / the ring's", "higher"),
    Row("call_vs_condition", "x", 1.3, "shared_memory and Condition's / the ring's", "higher"),
    Row("killed_readers", "of 20", KILLS, "kill -9 of a reader that stalled neither the writer nor another", "higher"),
    Row("table", "", None, "all peers, sizes, rates and numbers of readers"),
)


@dataclass
class Run:
    """What one run of one peer gave; times in µs."""

    publish_us: float
    writer_cpu_us: float
    call_p50_us: float
    call_p99_us: float
    commit_p50_us: float
    commit_p99_us: float
    reader_cpu_us: float
    delivered: float
    """Share of published frames that a reader got, mean of the readers."""


def absent(peer: str) -> str:
    """Why a peer cannot be run here; empty when it can."""
    try:
        importlib.import_module(PEERS[peer][0])
    except ImportError as error:
        return f"{error} (pip install .[bench])"
    return ""


def reader_main(peer: str, arguments: tuple[Any, ...], talk: Connection) -> None:
    """The reading process: take frames until told to stop, then tell what was seen."""
    taker = PEERS[peer][2](*arguments)
    talk.send("ready")
    calls: list[int] = []
    commits: list[int] = []
    cpu_s = time.process_time()
    while True:
        found = taker.take(0.2)
        if found is not None:
            call_ns, commit_ns, pointer_ns = found
            calls.append(pointer_ns - call_ns)
            commits.append(pointer_ns - commit_ns)
        elif talk.poll():
            break
    cpu_s = time.process_time() - cpu_s
    talk.send((calls, commits, cpu_s))
    talk.recv()
    os._exit(0)  # some peers' destructors hang


class Stage:
    """One peer with its reader processes."""

    def __init__(self, peer: str, size: int, readers: int) -> None:
        self.sender: Sender = PEERS[peer][1](f"bench{uuid.uuid4().hex[:8]}", size, readers)
        self.crowd: list[tuple[BaseProcess, Connection]] = []
        for _ in range(readers):
            ours, theirs = SPAWN.Pipe()
            process = SPAWN.Process(
                target=reader_main, args=(peer, self.sender.reader_arguments(), theirs), daemon=True
            )
            process.start()
            self.crowd.append((process, ours))
        for _, talk in self.crowd:
            if not talk.poll(30):
                raise TimeoutError(f"{peer}: a reader did not start")
            talk.recv()
        time.sleep(0.3)  # connections of messaging peers settle
        noise = np.random.default_rng(0).integers(0, 255, size, np.uint8)
        self.frames = [np.roll(noise, k).copy() for k in range(4)]
        self.published = 0

    def publish(self) -> float:
        """Publish one stamped frame; its duration in µs."""
        frame = self.frames[self.published % 4]
        self.published += 1
        frame[:8].view(np.int64)[0] = started = time.monotonic_ns()
        self.sender.publish(frame)
        return (time.monotonic_ns() - started) / 1000

    def close(self) -> list[tuple[list[int], list[int], float]]:
        """Stop the readers and collect what they saw."""
        for _, talk in self.crowd:
            talk.send("stop")
        seen = [talk.recv() for _, talk in self.crowd if talk.poll(30)]
        for process, talk in self.crowd:
            with suppress(BrokenPipeError):
                talk.send("bye")
            process.join(5)
            if process.is_alive():
                process.kill()
        self.sender.close()
        return seen


def run_once(peer: str, size: int, readers: int, fps: float, seconds: float) -> Run:
    """Publish at a rate and collect all figures."""
    stage = Stage(peer, size, readers)
    for _ in range(10):
        stage.publish()
        time.sleep(0.01)
    times: list[float] = []
    cpu_s, due_s = time.process_time(), time.perf_counter()
    for _ in range(int(seconds * fps)):
        due_s += 1 / fps
        time.sleep(max(0.0, due_s - time.perf_counter()))
        times.append(stage.publish())
    cpu_s = time.process_time() - cpu_s
    seen = stage.close()
    calls = [value / 1000 for call, _, _ in seen for value in call[10:]]
    commits = [value / 1000 for _, commit, _ in seen for value in commit[10:] if 0 < value < 10**10]
    received = [len(call) for call, _, _ in seen]
    return Run(
        publish_us=statistics.median(times),
        writer_cpu_us=cpu_s / len(times) * 1e6,
        call_p50_us=percentile(calls, 50),
        call_p99_us=percentile(calls, 99),
        commit_p50_us=percentile(commits, 50),
        commit_p99_us=percentile(commits, 99),
        reader_cpu_us=statistics.mean(cpu / max(1, len(call)) for call, _, cpu in seen) * 1e6 if seen else float("nan"),
        delivered=statistics.mean(received) / stage.published if received else float("nan"),
    )


def judged(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Alternate the ring with each peer it is judged against."""
    chosen = ["shm_ring", "iceoryx2", "queue", "zmq", "condition"]
    missing = {peer: absent(peer) for peer in chosen}
    present = [peer for peer in chosen if not missing[peer]]
    runs: dict[str, list[Run]] = {peer: [] for peer in present}
    for turn in range(2 if quick else PAIRS):
        for peer in present if turn % 2 else reversed(present):
            runs[peer].append(run_once(peer, SIZES["1080p_yuv420p"], 1, 120, 1 if quick else 2))
    claims = (
        ("latency_p50_vs_iceoryx2", "commit_p50_us", "shm_ring", "iceoryx2"),
        ("latency_p99_vs_iceoryx2", "commit_p99_us", "shm_ring", "iceoryx2"),
        ("reader_cpu_vs_iceoryx2", "reader_cpu_us", "shm_ring", "iceoryx2"),
        ("call_vs_queue", "call_p50_us", "queue", "shm_ring"),
        ("call_vs_zmq", "call_p50_us", "zmq", "shm_ring"),
        ("call_vs_condition", "call_p50_us", "condition", "shm_ring"),
    )
    for row, figure, above, below in claims:
        if reason := missing[above] or missing[below]:
            yield row, Skipped(reason)
            continue
        figures = {peer: [getattr(run, figure) for run in runs[peer]] for peer in (above, below)}
        yield row, compared(figures, above, below)


def killed(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Kill readers in the middle of things; the writer and a surviving reader must go on."""
    kills, unharmed = (4 if quick else KILLS), 0
    for _ in range(kills // 2):
        stage = Stage("shm_ring", SIZES["xga_yuv420p"], 3)
        for victim, _ in stage.crowd[:2]:
            for _ in range(5):
                stage.publish()
                time.sleep(0.002)
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            unharmed += max(stage.publish() for _ in range(20)) < 100_000
            time.sleep(0.05)
        stage.crowd = stage.crowd[2:]
        before = stage.published
        for _ in range(20):
            stage.publish()
            time.sleep(0.005)
        calls, _, _ = stage.close()[0]
        unharmed -= 2 * (len(calls) < (stage.published - before) * 0.9)
    yield (
        "killed_readers",
        Measured(unharmed * KILLS / kills, f"{unharmed} of {kills}; the third reader went on"),
    )


def table(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Run every peer in every cell once."""
    lines: Table = []
    skipped = {peer: reason for peer in PEERS if (reason := absent(peer))}
    cells = [(size, readers, 120) for size in SIZES for readers in (0, 1, 4)] + [(size, 1, 30) for size in SIZES]
    for size, readers, fps in cells[4:5] if quick else cells:
        for peer in PEERS:
            if peer in skipped:
                continue
            line: dict[str, Json] = {"frame": size, "readers": readers, "fps": fps, "peer": peer}
            try:
                run = run_once(peer, SIZES[size], readers, fps, 1.0)
            except (OSError, RuntimeError, ValueError, TimeoutError) as error:
                lines.append(line | {"failed": f"{type(error).__name__}: {error}"[:80]})
                continue
            figures = vars(run).items()
            lines.append(line | {name: round(value, 2 if name == "delivered" else 0) for name, value in figures})
    reasons: Table = [{"peer": peer, "reason": reason} for peer, reason in skipped.items()]
    tables = {"all peers, µs": lines, "skipped": reasons}
    yield "table", Measured(float(len(lines)), "cells, see the table", tables)


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Measure all rows."""
    yield from judged(quick)
    yield from killed(quick)
    yield from table(quick)
