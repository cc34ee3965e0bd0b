"""Hours of everything at once, in less time: what each process has of its own does not grow with time."""

from __future__ import annotations

import os
import time

import numpy as np
import psutil
import pytest

from tests.pipeline import ALL, Pipeline

HOURS, FPS = 4.0, 30.0
"""The time that is run through, counted in frames of a camera of this rate."""
LONGEST_S = 2400.0
"""A machine that is too slow for all of it runs so long."""
SETTLED = 0.4
"""The slope is that of what comes after this part: until then caches and pools fill."""
GROWTH_MIB_PER_H = 3.0
"""The most that a process may grow by; the exporter grew by 6 to 9."""
INDEX_MIB = 30.0
"""The most that the recorder may grow by in all: the index of an open mp4 (recorder.clips.clip.TABLE_FRAMES), and what
it takes to close one. It grew by 14 to 23 MiB an hour."""
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
}
COMMANDS = ("save jpg png", "pastStack before_s=0.2", "pictures", "clips", "status", "record trigger", "snapshot")


def run_through(pipeline: Pipeline, hours: float, longest_s: float) -> tuple[list[float], dict[str, list[float]]]:
    """Returns the hours that had passed at each measurement, and each process's own memory then, in MiB."""
    pids = {name: pipeline.pid(name) for name in ALL}
    at_hours: list[float] = []
    mib: dict[str, list[float]] = {name: [] for name in ALL}
    first, end_s, number = pipeline.frames(), time.monotonic() + longest_s, 0
    while time.monotonic() < end_s and (not at_hours or at_hours[-1] < hours):
        pipeline.text(COMMANDS[number % len(COMMANDS)], 60)
        number += 1
        at_hours.append((pipeline.frames() - first) / FPS / 3600)
        for name, pid in pids.items():
            mib[name].append(psutil.Process(pid).memory_full_info().uss / 2**20)
        time.sleep(2)  # the load that is measured
    assert pids == {name: pipeline.pid(name) for name in ALL}, "none was restarted meanwhile"
    return at_hours, mib


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(2900)
def test_no_process_grows_in_four_hours_of_everything():
    hours = float(os.environ.get("SHMCAM_SOAK_HOURS", HOURS))
    with Pipeline(**EVERYTHING) as pipeline:
        pipeline.wait_running()
        pipeline.text("night on")
        at_hours, mib = run_through(pipeline, hours, LONGEST_S)
    settled = int(len(at_hours) * SETTLED)
    slopes = {name: float(np.polyfit(at_hours[settled:], values[settled:], 1)[0]) for name, values in mib.items()}
    print(f"{at_hours[-1]:.2f} h in frames, {len(at_hours)} measurements")
    for name, values in mib.items():
        path = " → ".join(f"{value:.1f}" for value in (values[0], values[settled], values[-1]))
        print(f"{name:10} {path} MiB, {slopes[name]:+.2f} MiB/h")
    too_steep = {name: slope for name, slope in slopes.items() if slope > GROWTH_MIB_PER_H and name != "recorder"}
    assert not too_steep, too_steep
    assert max(mib["recorder"]) - mib["recorder"][0] < INDEX_MIB
