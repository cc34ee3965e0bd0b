"""Uses a whole service once, in whatever environment this is started: `python -m tests.faults.exercise --place /tmp`.

It starts, saves, stacks, records, is killed in part and stops; every file is read back. test_environments.py runs it.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from tests.faults.faulty_disk import FaultyDisk
from tests.faults.oracle import Oracle
from tests.machine import until
from tests.pipeline import Pipeline


def exercise(place: str, *, http: bool, disk: FaultyDisk | None = None) -> None:
    """`disk`: its clock steps a day back and six hours on while the service records. Raises: AssertionError."""
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
        environ=disk.environ() if disk else None,
    ) as shmcam:
        oracle = Oracle(shmcam, cameras=("cam0",))
        shmcam.wait_running()
        _save(shmcam, oracle, "before")
        others = {name: shmcam.pid(name) for name in shmcam.states() if name != "exporter"}
        until(lambda: shmcam.text("record start protect=true label=kept").startswith("recording"), 30, "a recording")
        for offset_s in (-86_400.0, 6 * 3600.0) if disk else ():
            disk.step_clock(offset_s)  # type: ignore[union-attr]
            time.sleep(2)
        _save(shmcam, oracle, "while")
        until(lambda: shmcam.text("pastStack before_s=1 label=stack").startswith("Saved"), 30, "a stack")
        dead = shmcam.kill("exporter")
        until(lambda: shmcam.pid("exporter") not in (0, dead), 30, "the exporter to come back")
        _save(shmcam, oracle, "after")
        shmcam.wait_running()
        assert {name: shmcam.pid(name) for name in others} == others, f"restarted: {shmcam.logs('watchdog')}"
        oracle.settle()
        oracle.check_all()
        print(oracle.report())


def _save(shmcam: Pipeline, oracle: Oracle, label: str) -> None:
    line = f"save formats=jpg,npy label={label}"
    answer = until(lambda: (text := shmcam.text(line, 30)).startswith("Saved") and text, 60, shmcam.text(line, 30))
    oracle.note(line, answer, label)


def main() -> int:
    """Reads the arguments and exercises. Returns: 0 if all was well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", default="/tmp")
    parser.add_argument("--no-http", action="store_true", help="no network, not even loopback")
    parser.add_argument("--step-clock", action="store_true", help="the wall clock steps while it records")
    options = parser.parse_args()
    with FaultyDisk(Path(options.place)) if options.step_clock else nullcontext() as disk:
        exercise(options.place, http=not options.no_http, disk=disk)
    print("all well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
