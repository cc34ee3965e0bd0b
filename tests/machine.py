"""What tests ask of the machine they run on: patience, time, room, programs. What is missing skips, and says so.

A wait against hangs has patience (`until`). A promise to a user ("within 3 s") is asserted as it is written (`within`),
times the load of the machine in that very time.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 3.0
"""Deadlines of polls are this many times what the test says: they are against hangs, and cost nothing otherwise."""

SHORT = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
"""Where folders with sockets go: their paths end at 107 bytes, and $TMPDIR may be long."""


def until(condition: Callable[[], Any], seconds: float = 30.0, what: str | Callable[[], str] = "") -> Any:
    """Poll until `condition()` is true and return it; a deadline that passes fails the test with `what`."""
    deadline = Deadline(seconds)
    while not (value := condition()):
        assert not deadline.has_passed(), f"{deadline}: {what() if callable(what) else what or condition}"
        time.sleep(0.02)
    return value


def long_ago_ns() -> int:
    """How long ago an old frame was captured: an hour, or less where the clock began later."""
    return min(3_600_000_000_000, time.clock_gettime_ns(time.CLOCK_BOOTTIME) * 9 // 10)


class Deadline:
    """The end of a wait against hangs: PATIENCE times so many seconds, of a machine that has nothing else to do.

    Beside busy processes the same work waits for a core: what passes between two looks counts the less, the more
    threads want each core.
    """

    def __init__(self, seconds: float) -> None:
        self._began_s = self._looked_s = time.monotonic()
        self._seconds = self._left_s = PATIENCE * seconds

    def has_passed(self) -> bool:
        """Called at each look."""
        now_s = time.monotonic()
        self._left_s -= (now_s - self._looked_s) / max(1.0, _count_wanted() / (os.cpu_count() or 1))
        self._looked_s = now_s
        return self._left_s < 0

    def __str__(self) -> str:
        return f"not within {self._seconds:g} s of an idle machine, {self._looked_s - self._began_s:.1f} s here"


class Load:
    """How much slower work is while the block runs than on a machine of its own.

    Three things take its time: other threads that want the cores, a host that gives the cores to other machines
    (steal time), and a host that stops altogether for a while: then the sampler itself wakes late.
    """

    SAMPLE_S = 0.05

    def __enter__(self) -> Load:
        self._began_s, self._stolen_s = time.monotonic(), _read_stolen_s()
        self._samples = [_count_wanted()]
        self._end = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._sampler.join()

    @property
    def factor(self) -> float:
        """How many times longer work took, 1 or more."""
        return slowdown_of(
            self._samples,
            self.SAMPLE_S,
            took_s=time.monotonic() - self._began_s,
            stolen_s=_read_stolen_s() - self._stolen_s,
            cores=os.cpu_count() or 1,
        )

    def _sample(self) -> None:
        while not self._end.wait(self.SAMPLE_S):
            self._samples.append(_count_wanted())


def slowdown_of(wanted: Sequence[int], sample_s: float, *, took_s: float, stolen_s: float, cores: int) -> float:
    """Returns how many times longer work took, 1 or more.

    wanted: the threads that wanted a core, read every `sample_s`. stolen_s: of all cores together. A host that stops
    shows as few samples, and often as steal time too: the larger of both counts.
    """
    waiting = sum(wanted) / len(wanted) / cores
    late = took_s / (sample_s * len(wanted))
    given = max(0.1, 1.0 - stolen_s / (took_s * cores))
    return max(1.0, waiting) * max(1.0, late, 1.0 / given)


def _count_wanted() -> int:
    """Threads that run, wait for a core or for a disk, but for this one."""
    words = dict(line.split()[:2] for line in Path("/proc/stat").read_text().splitlines())
    return int(words["procs_running"]) + int(words["procs_blocked"]) - 1


def _read_stolen_s() -> float:
    """The time of all cores that the host gave to others, in seconds (proc_stat(5), steal)."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Asserts that the block took no longer than this promise, times the load of the machine meanwhile."""
    began_s = time.monotonic()
    with Load() as load:
        yield
        took_s, factor = time.monotonic() - began_s, load.factor
    assert took_s < seconds * factor, f"took {took_s:.1f} s, promised within {seconds} s (load {factor:.1f} a core)"


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one of these programs is not installed (packaging/needs.sh test)."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def need_shared_memory(wanted_bytes: int) -> None:
    """Skip the running test where /dev/shm has no room for its rings, as in a container with Docker's 64 MB."""
    place = os.statvfs("/dev/shm")
    free_bytes = place.f_bavail * place.f_frsize
    if free_bytes < wanted_bytes:
        pytest.skip(f"needs {wanted_bytes / 1e6:.0f} MB in /dev/shm, {free_bytes / 1e6:.0f} MB are free")


def anonymous_bytes(pid: int) -> int:
    """What a process has written into memory, in bytes (proc_pid_smaps_rollup(5)): what a leak adds to.

    Not USS: that rises by the pages of OpenCV's code, 25 MB, when the last other program ends that has it loaded.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) * 1024 for kb in re.findall(r"^(?:Anonymous|Swap): +(\d+)", text, re.MULTILINE))
