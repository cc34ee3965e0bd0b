"""`shmcam top`: rings, writers, readers, live: fps, head, drops, age, latency; role, lag, laps, CPU, RSS."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from shm_ring.errors import FrameOverwritten, RingError
from shm_ring.reader import RingReader
from shm_ring.tools import list_rings

Figures = Callable[[], Mapping[int, Mapping[str, object]]]
"""Asks the hub what processes told it in their heartbeats: pid → {"lag": …, "laps": …}; readers register nowhere."""


@dataclass
class ReaderLine:
    """One process that maps a ring."""

    pid: int
    role: str
    cpu_percent: float
    rss_mb: float
    lag: object = None
    """Frames behind head, as it says itself; None = it does not say."""
    laps: object = None
    lag_ms: float | None = None
    """Age of the frame it is at, relative to the newest; None = unknown."""
    writable: bool = False


@dataclass
class RingLine:
    """One ring."""

    name: str
    state: str
    generation: int
    slots: int
    size_mb: float
    head: int
    fps: float
    writer_pid: int
    writer_alive: bool
    writer_age_s: float
    latency_ms: float | None
    """Published - captured of the newest frame."""
    drops: int
    """Frames lost before they reached the ring, since its source was opened."""
    readers: list[ReaderLine] = field(default_factory=list)


class RingTop:
    """The measurements of `shmcam top`; keeps heads and CPU times from one to the next, for rates."""

    def __init__(self, prefix: str | None, figures: Figures | None = None) -> None:
        self._prefix = prefix
        self._figures = figures
        self._heads: dict[str, tuple[float, int]] = {}
        self._cpu_s: dict[int, tuple[float, float]] = {}
        self._loads: dict[int, float] = {}

    def measure(self) -> list[RingLine]:
        """Measures every ring and its readers once."""
        self._loads.clear()
        names = list_rings.list_rings(self._prefix)
        readers = list_rings.find_readers(names)
        told = self._figures() if self._figures is not None else {}
        lines = []
        for name in names:
            try:
                with RingReader.open(name) as reader:
                    line = self._line_of(reader)
                    line.readers = [
                        self._reader_line_of(user, told.get(user.pid, {}), reader) for user in readers[name]
                    ]
            except RingError:
                continue  # it has gone or is just being made; the next look will tell
            lines.append(line)
        return lines

    def _line_of(self, reader: RingReader) -> RingLine:
        """Returns the line of one ring."""
        now_s, head = time.monotonic(), reader.head
        before_s, before = self._heads.get(reader.name, (now_s, head))
        self._heads[reader.name] = now_s, head
        latency_ms, drops = latency_ms_of(reader)
        return RingLine(
            name=reader.name,
            state=reader.state if reader.writer_alive or reader.retired else "left behind",
            generation=reader.generation,
            slots=reader.slots,
            size_mb=round(reader.shape.total_bytes / 1e6, 1),
            head=head,
            fps=round((head - before) / (now_s - before_s), 2) if now_s > before_s and head >= before else 0.0,
            writer_pid=reader.writer_pid,
            writer_alive=reader.writer_alive,
            writer_age_s=round(reader.writer_age_s, 3),
            latency_ms=latency_ms,
            drops=drops,
        )

    def _reader_line_of(self, user: list_rings.Reader, told: Mapping[str, object], ring: RingReader) -> ReaderLine:
        """Returns the line of one process that maps it."""
        import psutil

        try:
            process = psutil.Process(user.pid)
            times, rss = process.cpu_times(), process.memory_info().rss
        except psutil.Error:
            return ReaderLine(user.pid, user.role, 0.0, 0.0, writable=user.writable)
        return ReaderLine(
            user.pid,
            user.role,
            self._cpu_percent(user.pid, times.user + times.system),
            round(rss / 1e6, 1),
            told.get("lag"),
            told.get("laps"),
            lag_ms_of(ring, told.get("lag")),
            user.writable,
        )

    def _cpu_percent(self, pid: int, cpu_s: float) -> float:
        """Returns per cent of a CPU since the last measurement; the same for each ring that a process reads."""
        if pid not in self._loads:
            now_s = time.monotonic()
            before_s, before = self._cpu_s.get(pid, (now_s, cpu_s))
            self._cpu_s[pid] = now_s, cpu_s
            self._loads[pid] = round((cpu_s - before) / (now_s - before_s) * 100, 1) if now_s > before_s else 0.0
        return self._loads[pid]


def latency_ms_of(ring: RingReader) -> tuple[float | None, int]:
    """Returns the newest frame's latency and how many frames were dropped until then; None, 0 where there is none."""
    sequence = ring.latest()
    with suppress(FrameOverwritten):
        if sequence is not None:
            frame = ring.borrow(sequence)
            return round((frame.published_ns - frame.captured_ns) / 1e6, 2), frame.meta.total_dropped
    return None, 0


def lag_ms_of(ring: RingReader, lag: object) -> float | None:
    """Turns a lag in frames into one in time; None where it is unknown, or longer than the ring."""
    sequence = ring.latest()
    if not isinstance(lag, int) or sequence is None or sequence - lag < ring.oldest:
        return None
    with suppress(FrameOverwritten):
        was_ns = ring.borrow(sequence - lag).captured_ns
        return round((ring.borrow(sequence).captured_ns - was_ns) / 1e6, 1)
    return None


def to_text(lines: list[RingLine]) -> str:
    """Lays the table out."""
    if not lines:
        return "no rings in /dev/shm: is capture running? (shmcam status)"
    rows = [
        f"{'RING':28} {'STATE':12} {'GEN':>4} {'SLOTS':>6} {'MB':>8} {'HEAD':>10} {'FPS':>7} "
        f"{'AGE s':>7} {'LAT ms':>7} {'DROPS':>6}"
    ]
    for ring in lines:
        latency = "-" if ring.latency_ms is None else f"{ring.latency_ms:.1f}"
        rows.append(
            f"{ring.name:28} {ring.state:12} {ring.generation:4} {ring.slots:6} {ring.size_mb:8} {ring.head:10} "
            f"{ring.fps:7.1f} {ring.writer_age_s:7.2f} {latency:>7} {ring.drops:6}"
        )
        for user in sorted(ring.readers, key=lambda user: (user.pid != ring.writer_pid, user.role)):
            what = "writer" if user.pid == ring.writer_pid else "WRITABLE!" if user.writable else "reader"
            lag, lag_ms, laps = ("-" if value is None else value for value in (user.lag, user.lag_ms, user.laps))
            rows.append(
                f"  {what:9} {user.role[:20]:20} pid {user.pid:<8} cpu {user.cpu_percent:5.1f} %  "
                f"rss {user.rss_mb:7.1f} MB  lag {lag} ({lag_ms} ms)  laps {laps}"
            )
    return "\n".join(rows)


def number(text: str) -> float:
    """Reads the value of an option; argparse puts this function's name into its message."""
    return float(text)


def main(argv: list[str] | None = None, figures: Figures | None = None) -> int:
    """Shows the table until Ctrl-C; `figures` adds what only the processes themselves know."""
    parser = argparse.ArgumentParser(prog="shmcam top", description=__doc__)
    parser.add_argument("--prefix", metavar="NAME", help="only rings of this prefix ([ring] prefix in config.toml)")
    parser.add_argument(
        "--interval", type=number, default=1.0, metavar="SECONDS", help="seconds between looks (default 1)"
    )
    parser.add_argument("--once", action="store_true", help="one table, then stop")
    parser.add_argument("--json", action="store_true", help="one JSON array a look")
    wanted = parser.parse_args(argv)
    interval_s = max(0.1, wanted.interval)
    rings = RingTop(wanted.prefix, figures)
    in_place = sys.stdout.isatty() and not wanted.once and not wanted.json
    try:
        rings.measure()
        while True:
            time.sleep(interval_s)
            lines = rings.measure()
            shown = json.dumps([asdict(line) for line in lines]) if wanted.json else to_text(lines)
            print(f"\x1b[H\x1b[J{shown}" if in_place else shown, flush=True)
            if wanted.once:
                return 0
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
