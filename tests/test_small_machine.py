"""A machine with little memory, as a control group that counts shared memory too: nothing is killed, rings fit."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.machine import until
from tests.pipeline import Pipeline

LIMIT_BYTES = 430_000_000
"""What Linux leaves of a board's 512 MB."""
RUN_S = float(os.environ.get("SHMCAM_SMALL_MACHINE_S", "60"))
USER = {"width": 1024, "height": 768, "framerate": 10}
DEFAULT = {"width": 1280, "height": 720, "framerate": 30}

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(RUN_S + 300)]


@contextmanager
def memory_group() -> Iterator[Path]:
    """A control group with the limit, of which a child that is started inside becomes a member."""
    root = Path("/sys/fs/cgroup")
    own = next(
        line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line or "::" in line
    )
    top = root / "memory" if (root / "memory").is_dir() else root
    home, group = top / own.rpartition(":")[2].lstrip("/"), top / f"shmcam-test-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if top != root else "memory.max")
    try:
        group.mkdir()
        limit.write_text(str(LIMIT_BYTES))
    except OSError as error:
        pytest.skip(f"no control group for memory can be made: {error}")
    try:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield group
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))


def kills_of(group: Path) -> int:
    """How often the kernel killed a member."""
    for name in ("memory.oom_control", "memory.events"):
        with suppress(OSError):
            lines = dict(line.split() for line in (group / name).read_text().splitlines())
            return int(lines["oom_kill"])
    raise AssertionError("the kernel does not tell")


def look(url: str) -> None:
    with suppress(OSError), urllib.request.urlopen(url, timeout=10) as stream:
        while stream.read(65536):
            pass


@pytest.mark.parametrize(
    ("camera", "ring"),
    [
        (USER, {"size": 300}),
        (USER, {"size": 300, "downscale": {"enable": True, "width": 256, "height": 192}}),
        (DEFAULT, {"size": 0}),
    ],
    ids=["user", "user with a small history", "720p30"],
)
def test_recording_saves_and_a_viewer_fit_into_what_a_512_mb_board_leaves(camera, ring):
    pipeline = Pipeline(camera=camera, ring=ring)
    with memory_group() as group:
        pipeline.start()
    try:
        pipeline.wait_running()
        threading.Thread(target=look, args=(f"{pipeline.url}/stream",), daemon=True).start()
        pipeline.text("record start", 60)
        end = time.monotonic() + RUN_S
        while time.monotonic() < end:
            assert "Saved" in pipeline.text("save", 30)
            time.sleep(1)
        assert "RECORDING" in pipeline.text("record status")
        recorded = pipeline.text("record stop", 60)
        # With a small history the full-size ring holds a second: a busy machine laps the recorder, and that is told.
        assert "lost=0" in recorded or "downscale" in ring
        assert kills_of(group) == 0
        assert all(state == "RUNNING" for state in pipeline.states().values())
    finally:
        pipeline.stop()
        until(lambda: not (group / "cgroup.procs").read_text().split(), 30, "its processes to end")
        group.rmdir()
