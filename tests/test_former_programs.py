"""What scripts of the former programs send and read, at the whole, real pipeline with the user's own configuration."""

from __future__ import annotations

import re
import socket
import struct
import time
import urllib.request
from pathlib import Path

import pytest

from shmcam.control.call import call
from tests.machine import until
from tests.pipeline import Pipeline

SHM_BYTES_MAX = 40_000_000
"""Issue 17: what the user's own configuration may take of shared memory."""


@pytest.fixture(scope="module")
def shmcam():
    """The user's config.json, with the small history ring."""
    with Pipeline(
        camera={"width": 1024, "height": 768, "framerate": 10, "codec": "rgb", "video_mode": "stream"},
        ring={"size": 300, "downscale": {"enable": True, "width": 256, "height": 192}},
        export={"save_before_s": 5, "stack_count": 4, "stack_dark_frames": True, "formats": ["jpg", "png"]},
        logging={"level": "info"},
    ) as pipeline:
        until(lambda: "missing" not in pipeline.text("status"), 60, "all connected")
        until(lambda: pipeline.text("save jpg").startswith("Saved"), 60, "frames")
        until(lambda: "oldest" not in pipeline.text("save jpg seconds_ago=6"), 60, "6 s in the ring")
        yield pipeline


def shared_memory_of(prefix):
    return sum(path.stat().st_size for path in Path("/dev/shm").glob(f"{prefix}.*"))


def test_the_users_configuration_fits_into_40_mb_while_it_records_and_is_watched(shmcam):
    assert shmcam.text("record start label=mouse_1").startswith("recording ")
    with urllib.request.urlopen(f"http://127.0.0.1:{shmcam.port}/live.mp4", timeout=30) as video:
        assert video.read(1000)
        until(lambda: Path(f"/dev/shm/{shmcam.prefix}.cam0.h264").exists(), 20, "packets")
        rings = sorted(path.name for path in Path("/dev/shm").glob(f"{shmcam.prefix}.*"))
        assert len(rings) == 4, rings
        assert shared_memory_of(shmcam.prefix) <= SHM_BYTES_MAX, rings
    assert "drops=0 lost=0" in shmcam.text("record stop")


def test_past_stack_reaches_back_into_the_small_ring_and_says_so(shmcam):
    text = shmcam.text("pastStack jpg")
    first, figures, _ = text.splitlines()
    match = re.fullmatch(
        r"Saved stacked image: (\S+) \| stack of 4 frames \| .*\(export.save_before_s: 5\.000 s\)", first
    )
    assert match and "from the small ring" in figures, text
    ages = [float(age) for age in re.findall(r"\(age: ([\d.]+)s\)", first)]
    assert all(4 < age < 6 for age in ages), text
    near = shmcam.text("save jpg seconds_ago=0.2")
    assert "small ring" not in near and re.search(r"\(timestamp: \d+\.\d{3}, age: \d+\.\d\ds\)", near), near
    assert "small ring" in shmcam.text("save jpg seconds_ago=4")


def test_shortstream_sends_the_last_frames_at_once(shmcam):
    started_s = time.monotonic()
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(str(shmcam.socket))
        link.sendall(b"shortstream 30\n")
        stream = link.makefile("rb")
        sizes = []
        while (size := struct.unpack(">I", stream.read(4))[0]) != 0:
            assert stream.read(size)[:2] == b"\xff\xd8"
            sizes.append(size)
        line = stream.readline().decode()
    assert len(sizes) == 30 and time.monotonic() - started_s < 3.0, "30 frames are 3 s at this rate"
    assert line == "STREAM_DONE: sent=30, skipped=0, available=30, from the small ring\n"
    live = call(shmcam.socket, "shortstream 2 live", on_chunk=lambda data: None)
    assert live.data["sent"] == 2 and live.data["ring"] == "main"
