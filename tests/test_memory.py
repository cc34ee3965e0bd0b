"""Hours of everything at once, in less time: what each process has of its own does not grow with time."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import psutil
import pytest

from tests.machine import anonymous_bytes
from tests.pipeline import ALL, Pipeline
from tests.reading import stream_parts
from tests.shmcam.mqtt.brokers import MOSQUITTO, Mosquitto

HOURS, FPS = 4.0, 30.0
"""The time that is run through, counted in frames of a camera of this rate."""
LONGEST_S = 2400.0
"""A machine that is too slow for all of it runs so long."""
SETTLED = 0.4
"""The slope is that of what comes after this part: until then caches and pools fill."""
GROWTH_MIB_PER_H = 3.0
"""The most that a process may grow by."""
INDEX_MIB = 30.0
"""The most that the recorder may grow by in all: the index of an open mp4 (recorder.clips.clip.TABLE_FRAMES), and what
it takes to close one. It grew by 14 to 23 MiB an hour."""
NEW_DESCRIPTORS = 8
"""Viewers and connections come and go: at some instants there are more of them."""
ACCELERATION = 8
EVERYTHING = {
    "camera": {"width": 160, "height": 120, "framerate": FPS * ACCELERATION},
    "export": {
        "auto_save_interval_s": 10.0,
        "timelapse_interval_s": 10.0 / ACCELERATION,
        "startrails": True,
        "startrails_interval_s": 60.0 / ACCELERATION,
        "startrails_film_interval_s": 30.0 / ACCELERATION,
        "long_exposure_s": 2,
    },
    "recorder": {"auto_start": True, "mode": "session", "preset": "ultrafast"},
    "library": {"free_reserve_mb": 1, "pictures_max_count": 200},
    "hooks": {"enable": True, "actions": {"each": {"events": ["saved", "clip_closed"], "command": ["/bin/true"]}}},
}
COMMANDS = ("save jpg png", "pastStack before_s=0.2", "pictures", "clips", "status", "record trigger", "snapshot")


@contextmanager
def users_of(pipeline: Pipeline) -> Iterator[Counter[str]]:
    """People and programs that come and go, for the length of the block. Yields: how often each came."""
    came: Counter[str] = Counter()
    done = threading.Event()

    def watch() -> None:
        for number, _ in enumerate(stream_parts(f"{pipeline.url}/stream", 10)):
            if number == 5:
                return

    def ask() -> None:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            peer.connect(str(pipeline.socket))
            peer.sendall(b"ping\n")
            peer.recv(100)

    def look() -> None:
        for path in ("/api/v1/overview", "/snapshot.jpg", "/metrics"):
            pipeline.http(path, 10)

    def come_and_go(visit: Callable[[], None], pause_s: float) -> None:
        while not done.wait(pause_s):
            try:
                visit()
                came[visit.__name__] += 1
            except OSError:
                came[f"{visit.__name__}: refused"] += 1

    visits = ((watch, 0.05), (ask, 0.02), (look, 0.2))
    threads = [threading.Thread(target=come_and_go, args=visit, daemon=True) for visit in visits]
    for thread in threads:
        thread.start()
    yield came
    done.set()
    for thread in threads:
        thread.join(30)


def run_through(pipeline: Pipeline, hours: float, longest_s: float) -> tuple[list[float], dict[str, list[list[float]]]]:
    """Returns the hours that had passed at each measurement, and of each process then: MiB, descriptors, threads."""
    pids = {name: pipeline.pid(name) for name in pipeline.states()}
    at_hours: list[float] = []
    sizes: dict[str, list[list[float]]] = {name: [] for name in pids}
    first, end_s, number = pipeline.frames(), time.monotonic() + longest_s, 0
    while time.monotonic() < end_s and (not at_hours or at_hours[-1] < hours):
        pipeline.text(COMMANDS[number % len(COMMANDS)], 60)
        number += 1
        at_hours.append((pipeline.frames() - first) / FPS / 3600)
        for name, pid in pids.items():
            process = psutil.Process(pid)
            sizes[name].append([anonymous_bytes(pid) / 2**20, process.num_fds(), process.num_threads()])
        time.sleep(2)  # the load that is measured
    assert pids == {name: pipeline.pid(name) for name in pids}, "none was restarted meanwhile"
    return at_hours, sizes


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(2900)
def test_no_process_grows_in_four_hours_of_everything():
    hours, longest_s = float(os.environ.get("SHMCAM_SOAK_HOURS", HOURS)), LONGEST_S
    with Mosquitto() if MOSQUITTO else nullcontext() as broker:
        mqtt = {"mqtt": {"enable": True, "port": broker.port, "image_s": 1.0}} if broker else {}
        with Pipeline(**EVERYTHING, **mqtt) as pipeline, users_of(pipeline) as came:
            pipeline.wait_running(*ALL, "hooks", *mqtt)
            pipeline.text("night on")
            at_hours, sizes = run_through(pipeline, hours, longest_s)
    settled = int(len(at_hours) * SETTLED)
    of = {name: np.array(values) for name, values in sizes.items()}
    slopes = {name: float(np.polyfit(at_hours[settled:], values[settled:, 0], 1)[0]) for name, values in of.items()}
    print(f"{at_hours[-1]:.2f} h in frames, {len(at_hours)} measurements, {dict(came)}")
    for name, values in of.items():
        mib, descriptors, threads = (
            " → ".join(f"{values[at, part]:.{1 - min(part, 1)}f}" for at in (0, settled, -1)) for part in range(3)
        )
        print(f"{name:10} {mib} MiB, {slopes[name]:+.2f} MiB/h, descriptors {descriptors}, threads {threads}")
    sys.stdout.flush()
    too_steep = {name: slope for name, slope in slopes.items() if slope > GROWTH_MIB_PER_H and name != "recorder"}
    assert not too_steep, too_steep
    assert of["recorder"][:, 0].max() - of["recorder"][0, 0] < INDEX_MIB
    rest = {
        name: np.median(values[-9:, 1]) - np.median(values[settled : settled + 9, 1]) for name, values in of.items()
    }
    assert max(rest.values()) <= NEW_DESCRIPTORS, rest
