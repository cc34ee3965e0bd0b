"""Uses a whole service once, in whatever environment this is started: `python -m tests.faults.exercise --place /tmp`.

It starts, saves, stacks, records, is killed in part and stops; every file is read back. test_environments.py runs it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.oracle import Oracle
from tests.machine import until
from tests.pipeline import Pipeline


def exercise(place: str, *, http: bool, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Raises AssertionError where something is not as it should be."""
    ready = ("capture", "streamer") if http else ("capture",)
    recorder = {"preset": "ultrafast", "threads": 1, "pre_roll_s": 0.0}
    with Pipeline(
        camera={"width": 320, "height": 240, "framerate": 10},
        ring={"size": 40},
        night={"enable": False},
        motion={"enable": False},
        recorder=recorder,
        place=place,
        ready=ready,
    ) as shmcam:
        oracle = Oracle(shmcam, cameras=("cam0",))
        shmcam.wait_running()
        _save(shmcam, oracle, "before")
        capture = shmcam.pid("capture")
        until(lambda: shmcam.text("record start protect=true label=kept").startswith("recording"), 30, "a recording")
        meanwhile()
        _save(shmcam, oracle, "while")
        until(lambda: shmcam.text("pastStack before_s=1 label=stack").startswith("Saved"), 30, "a stack")
        dead = shmcam.kill("exporter")
        until(lambda: shmcam.pid("exporter") not in (0, dead), 30, "the exporter to come back")
        _save(shmcam, oracle, "after")
        assert shmcam.pid("capture") == capture, "capture was restarted"
        shmcam.wait_running()
        oracle.settle()
        oracle.check_all()
        print(oracle.report())


def _save(shmcam: Pipeline, oracle: Oracle, label: str) -> None:
    line = f"save formats=jpg,npy label={label}"
    answer = until(lambda: (text := shmcam.text(line, 30)).startswith("Saved") and text, 60, shmcam.text(line, 30))
    oracle.note(line, answer, label)


def steps(path: Path) -> Callable[[], None]:
    """Sets the clock of libfaketime a day back and six hours on, while the service records."""

    def step() -> None:
        for offset in ("-1d", "+6h"):
            path.write_text(offset)
            os.utime(path)
            time.sleep(2)

    return step


def main() -> int:
    """Reads the arguments and exercises. Returns: 0 if all was well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", default="/tmp")
    parser.add_argument("--no-http", action="store_true", help="no network, not even loopback")
    parser.add_argument("--clock", type=Path, help="libfaketime's file: the clock steps while it records")
    options = parser.parse_args()
    meanwhile = steps(options.clock) if options.clock else lambda: None
    exercise(options.place, http=not options.no_http, meanwhile=meanwhile)
    print("all well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
