"""A short storm on each run, a long one in `make faults`; both with a seed that is printed and can be set."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.faults.faulty_disk import needs_faulty_disk
from tests.faults.oracle import Oracle


def storm(*arguments: str) -> str:
    seed = os.environ.get("SHMCAM_SEED") or str(secrets.randbelow(1 << 32))
    command = [sys.executable, "-m", "tests.faults.storm", "--seed", seed, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    return done.stdout if done.returncode == 0 else f"FAILED with SHMCAM_SEED={seed}\n{done.stdout[-4000:]}"


def test_an_answer_that_names_a_file_is_held_to_it_and_one_that_waits_for_a_frame_is_not():
    """Capture stood for 20 s, a recording was started and stopped: nothing was recorded, and the storm failed."""
    oracle = Oracle(SimpleNamespace(folder=Path("/f")))
    oracle.note("record start protect=true", "recording begins with the first frame; none has come yet", "waits")
    oracle.note("record start protect=true", "recording /f/recordings/a_s1.mp4 from frame 7; short", "s1")
    oracle.note("record start", "recording /f/recordings/b_s2.mp4 from frame 9", "s2")
    assert list(oracle.protected_labels) == ["s1"]


@needs_faulty_disk
@pytest.mark.timeout(600)
def test_pairs_of_faults_leave_a_whole_service():
    assert storm("--minutes", "0", "--pairs", "4").endswith("all well\n")


@needs_faulty_disk
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_minutes_of_pairs_of_faults_leave_a_whole_service():
    assert storm("--minutes", "20").endswith("all well\n")
