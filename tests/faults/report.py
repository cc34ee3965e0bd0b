"""Prints the figures of faults: what is aimed at, and what this machine does. `make faults-report`, about an hour.

Some are measured here on one service, the others are what the tests of docs/faults.md print while they check them.

    python -m tests.faults.report            # all
    python -m tests.faults.report restart    # those whose name contains this word
"""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.machine import until
from tests.pipeline import ALL, Pipeline
from tests.test_kill import Watcher

KILLS = 20
IDLE_S = 120.0
SMALL = {"width": 640, "height": 480, "framerate": 30}


@dataclass(frozen=True)
class Figure:
    """One line of the report."""

    name: str
    aim: str
    tests: tuple[str, ...] = ()
    """Tests below tests/ that print it."""
    measure: Callable[[Pipeline], str] | None = None


def quantiles_of(values: list[float], unit: str = "s") -> str:
    ordered = sorted(values)
    picked = {"median": 0.5, "p95": 0.95, "p99": 0.99, "longest": 1.0}
    parts = [
        f"{name} {ordered[min(len(ordered) - 1, int(len(ordered) * at))]:.2f} {unit}" for name, at in picked.items()
    ]
    return f"{', '.join(parts)} of {len(ordered)}"


def measure_restart(shmcam: Pipeline) -> str:
    took = []
    for _ in range(KILLS):
        shmcam.wait_running("capture")
        begun = time.monotonic()
        shmcam.kill("capture")
        head = shmcam.frames()
        until(lambda head=head: shmcam.frames() > head, 30, "frames")
        took.append(time.monotonic() - begun)
        time.sleep(6)  # startsecs: a program killed again before counts as one that does not start
    return quantiles_of(took)


def measure_hang(shmcam: Pipeline) -> str:
    shmcam.wait_running("capture")
    begun, hung = time.monotonic(), shmcam.kill("capture", signal.SIGSTOP)
    until(lambda: shmcam.pid("capture") not in (0, hung), 60, "another capture")
    took = time.monotonic() - begun
    head = shmcam.frames()
    until(lambda: shmcam.frames() > head, 30, "its frames")  # else it ends before it owns the ring
    return f"{took:.1f} s"


def measure_disturbance(shmcam: Pipeline) -> str:
    """Intervals between frames while each reader is killed, and somebody burns the CPU."""
    with Watcher(shmcam) as watcher:
        arrived: list[float] = []
        seen = 0
        hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            for victim in ("streamer", "analyzer", "exporter", "recorder"):
                shmcam.kill(victim)
                end = time.monotonic() + 5
                while time.monotonic() < end:
                    if len(watcher.ids) > seen:
                        arrived.append(time.monotonic())
                        seen = len(watcher.ids)
                    time.sleep(0.001)
        finally:
            hog.kill()
            hog.wait()
    lost = watcher.ids[-1] - watcher.ids[0] + 1 - len(watcher.ids)
    intervals = [1000 * (after - before) for before, after in itertools.pairwise(arrived)]
    return f"{lost} frames lost; intervals {quantiles_of(intervals, 'ms')} (nominal 33.33 ms)"


def measure_start(_: Pipeline) -> str:
    with Pipeline(camera=SMALL, ready=()) as other:
        until(other.frames, 60, "a first frame")
        begun = psutil.Process(other.supervisord_pid).create_time()
        return f"{time.time() - begun:.1f} s"


def measure_service_restart(shmcam: Pipeline) -> str:
    begun = time.monotonic()
    shmcam.supervisorctl("restart", "all")
    shmcam.wait_running(*ALL, seconds=60)
    return f"{time.monotonic() - begun:.1f} s, {len(shmcam.states())} programs"


def measure_idle_writes(shmcam: Pipeline) -> str:
    def written() -> int:
        total = 0
        for name in ALL:
            text = Path(f"/proc/{shmcam.pid(name)}/io").read_text()
            total += int(re.search(r"^write_bytes: (\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
        return total

    shmcam.wait_running()
    time.sleep(10)  # what a start writes is over
    before = written()
    time.sleep(IDLE_S)  # what is measured
    return f"{(written() - before) * 3600 / IDLE_S / 1e6:.2f} MB/h (over {IDLE_S:.0f} s)"


POWER = ("test_100_kills", "test_300_power_cuts", "test_450_torn_tails")
FIGURES = (
    Figure("new frames after kill -9 of capture", "p95 3 s, longest 5 s", measure=measure_restart),
    Figure("hang found and killed", "20 s + 1 s", measure=measure_hang),
    Figure("capture disturbed by readers and load", "p99 1.5 periods, 0 lost", measure=measure_disturbance),
    Figure("cold start to the first frame", "3 s", measure=measure_start),
    Figure("restart of all programs", "10 s", measure=measure_service_restart),
    Figure("bytes written while nothing is recorded", "1 MB/h", measure=measure_idle_writes),
    Figure(
        "torn frames that were taken for whole", "0 in 10^6 reads and 200 kills; many without the check",
        ("shm_ring/test_stress.py::test_a_million_reads_with_two_hundred_writer_kills",
         "shm_ring/test_stress.py::test_the_same_readers_accept_torn_frames_when_the_second_check_is_removed"),
    ),
    Figure("faults over all processes, in pairs", "200 and all well",
           ("faults/test_storm.py::test_twenty_minutes_of_pairs_of_faults_leave_a_whole_service",)),
    Figure("recordings after kills, power cuts, torn tails", "no whole fragment lost",
           tuple(f"recorder/clips/test_power_cut.py::{name}" for name in POWER)),
    Figure("each failing call", "whole or absent, true, healed", ("faults/test_faulty_disk.py",)),
    Figure("killed while saving the configuration", "old or new",
           ("shmcam/hub/test_configuration.py::test_killed_anywhere_while_setting_and_saving_it_is_all_or_nothing",)),
    Figure("malformed messages", "10^5: no crash, 5 MB, p99 100 ms",
           ("shmcam/hub/test_server.py::test_malformed_messages_crash_nothing_grow_nothing_and_delay_nobody",)),
    Figure("stalled viewers", "reset within 10 s, others undisturbed",
           ("streamer/pictures/test_stream.py::test_a_viewer_who_never_reads_is_reset_and_disturbs_nobody",)),
    Figure("2000 slow connections", "closed within 15 s, others answered within 1 s",
           ("streamer/test_limits.py::test_a_flood_of_2000_slow_connections_locks_nobody_out",)),
    Figure("logs", "50 MB in all",
           ("shmcam/runtime/test_logs.py::test_all_logs_together_stay_within_theirs_and_nothing_else_is_touched",)),
    Figure("clock steps", "nothing lost, overwritten, deleted",
           ("faults/test_environments.py::test_a_clock_that_steps",)),
)  # fmt: skip


def run_tests(figure: Figure) -> str:
    """Runs the tests of a figure. Returns: passed or failed, and what they printed that has a number in it."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rP",
        "--timeout",
        "3000",
        *(f"tests/{name}" for name in figure.tests),
    ]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    printed = [
        line for line in done.stdout.splitlines() if re.search(r"\d", line) and not re.match(r"[_=.\[]|PASSED", line)
    ]
    outcome = "passed" if done.returncode == 0 else f"FAILED ({done.returncode})"
    return "\n      ".join([f"{outcome} in {time.monotonic() - begun:.0f} s", *printed[-12:]])


def main() -> int:
    """Prints a line or more for each figure. Returns: 1 if a test failed."""
    wanted = [figure for figure in FIGURES if all(word in figure.name for word in sys.argv[1:])]
    failed = False
    if any(figure.measure for figure in wanted):
        with Pipeline(camera=SMALL, night={"enable": False}, motion={"enable": False}) as shmcam:
            shmcam.wait_running()
            for figure in wanted:
                if figure.measure:
                    print(f"{figure.name}\n    aim  {figure.aim}\n    now  {figure.measure(shmcam)}", flush=True)
    for figure in wanted:
        if figure.tests:
            outcome = run_tests(figure)
            failed |= "FAILED" in outcome
            print(f"{figure.name}\n    aim  {figure.aim}\n    now  {outcome}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
