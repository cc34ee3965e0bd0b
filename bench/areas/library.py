"""The library of a year: 100,000 pictures as rows and as files; lists, search, the start. Issue 15."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.measure import Measured, Outcome, Row, paired, ratios
from shmcam.library import Catalogue, Entry
from shmcam.library.query import Query

MANY, FEW = 100_000, 200
LINKS = 50_000
"""Names of one file, below the limit of ext4 (65,000): a hundred thousand files of their own would cost 400 MB here."""
MEMORY = "/dev/shm"

ROWS = (
    Row("newest_page", "s", 0.05, "the newest 50 of 100,000 pictures"),
    Row("newest_page_growth", "x of 200", 2, "the same / the newest 50 of 200"),
    Row("search", "s", None, "50 pictures by a word of their label, of 100,000 of which none has it"),
    Row("start", "s", 4.0, "the exporter's start: 100,000 files and rows are compared, nothing differs"),
    Row("start_mb", "MB", 60.0, "resident memory that this start takes at its peak"),
    Row("check_mb", "MB", 60.0, "the same of `library check`"),
    Row("rebuild", "s", None, "100,000 rows made anew from the files"),
)


PEAK = """
import sys
from pathlib import Path
from shmcam.library import Catalogue

def read_mb(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1024

path = Path(sys.argv[1])
with Catalogue(path, (path.parent / "captures",)) as catalogue:
    catalogue.find(limit=50)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = read_mb("VmRSS")
    getattr(catalogue, sys.argv[2])()
    print(read_mb("VmHWM") - before)
"""
"""Prints the MB that a work of the catalogue takes, in a process of its own."""


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Measure every row."""
    repeats = 3 if quick else 7
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, ExitStack() as opened:
        small = opened.enter_context(_fill(Path(folder) / "few", FEW))
        began = time.perf_counter()
        large = opened.enter_context(_fill(Path(folder) / "many", MANY))
        filled_s = time.perf_counter() - began
        assert len(large.find(limit=MANY + 1)) == MANY
        subjects = {"large": _timed(lambda: large.find(limit=50)), "small": _timed(lambda: small.find(limit=50))}
        figures = paired(subjects, repeats)
        pairs = ratios(figures, "large", "small")
        yield "newest_page", Measured(statistics.median(figures["large"]), f"worst {max(figures['large']):.4f}")
        yield "newest_page_growth", Measured(statistics.median(pairs), f"{min(pairs):.2f} … {max(pairs):.2f}")
        yield "search", _median(lambda: large.search(Query(text="fox", limit=50)), repeats)
        yield "start", _median(large.reconcile, 3, f"after a fill of {filled_s:.1f} s")
        for name, work in (("start_mb", "reconcile"), ("check_mb", "check")):
            done = subprocess.run(
                [sys.executable, "-c", PEAK, str(large.path), work], check=True, text=True, stdout=subprocess.PIPE
            )
            yield name, Measured(float(done.stdout))
        yield "rebuild", _median(large.rebuild, 1)


def _fill(place: Path, count: int) -> Catalogue:
    """Returns the catalogue of so many pictures, a minute apart, adopted from their files."""
    captures = place / "captures"
    captures.mkdir(parents=True)
    catalogue = Catalogue(place / "library.sqlite3", (captures,))
    for number in range(count):
        if number % LINKS == 0:
            picture, sidecar = place / f"{number}.npy", place / f"{number}.npy.json"
            started_ns = (1_700_000_000 + number * 60) * 1_000_000_000
            entry = Entry(kind="picture", camera="cam0", path=picture, started_utc_ns=started_ns, trigger="auto")
            picture.touch()
            sidecar.write_text(json.dumps(entry.to_description()))
        name = captures / f"20260101_{number:06d}_f{number}.npy"
        os.link(picture, name)
        os.link(sidecar, f"{name}.json")
    catalogue.reconcile()
    return catalogue


def _timed(action: Callable[[], object]) -> Callable[[], float]:
    def measure() -> float:
        began = time.perf_counter()
        action()
        return time.perf_counter() - began

    return measure


def _median(action: Callable[[], object], repeats: int, detail: str = "") -> Measured:
    figures = [_timed(action)() for _ in range(repeats)]
    return Measured(statistics.median(figures), f"{min(figures):.3f} … {max(figures):.3f} {detail}".rstrip())
