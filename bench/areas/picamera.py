"""What a frame costs from Picamera2 into the ring, against Picamera2's own private copy. Needs the rig, see docs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Measured, Outcome, Row, Skipped, compared

ROWS = (
    Row("picamera2_720p", "x", 1.25, "CPU per frame, Picamera2 to ring with metadata / Picamera2 capture_array, 720p"),
    Row("picamera2_1080p", "x", 1.25, "the same, 1080p"),
)
RIG = Path(__file__).parents[2] / "tests" / "picamera2" / "rig"
FOLDER = Path(os.environ.get("SHMCAM_RIG", "/var/tmp/shmcam-rig"))
LIMIT_S = 600
ENVIRONMENT = (
    "-C",
    "/opt/shmcam",
    "LD_PRELOAD=/opt/rig/shim.so /opt/rig/rigcam.so",
    "PYTHONPATH=/opt/rig:/opt/shmcam",
    "LIBCAMERA_LOG_LEVELS=*:ERROR",
    "RIG_MOTION=0",
)


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Measure inside the rig where it has been built."""
    if not (FOLDER / "packages.done").exists() or os.geteuid() != 0:
        for row in ROWS:
            yield row.name, Skipped("needs root and the rig that `make test-picamera2` builds")
        return
    subprocess.run([RIG / "setup.sh", FOLDER], check=True, timeout=LIMIT_S, stdout=subprocess.DEVNULL)
    command: list[str | Path] = [
        RIG / "enter.sh",
        FOLDER,
        "/usr/bin/env",
        *ENVIRONMENT,
        "/opt/venv/bin/python",
        "-m",
        "tests.picamera2.cost",
    ]
    done = subprocess.run(
        [*command, *(["--quick"] if quick else [])], check=True, timeout=LIMIT_S, capture_output=True, text=True
    )
    for size, figures in json.loads(done.stdout.splitlines()[-1]).items():
        outcome = compared(figures, "ring", "capture_array")
        without = statistics.median(figures["nobody"])
        copy = figures["copy"][0]
        beside = f"; the camera alone {without:.0f} µs (the rig draws in this process), bare copy {copy:.0f} µs"
        yield f"picamera2_{size}", Measured(outcome.value, outcome.detail + beside)
