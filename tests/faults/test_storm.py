"""A short storm on each run, a long one in `make faults`; both with a seed that is printed and can be set."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest

from tests.faults.faulty_disk import needs_faulty_disk


def storm(*arguments: str) -> str:
    seed = os.environ.get("SHMCAM_SEED") or str(secrets.randbelow(1 << 32))
    command = [sys.executable, "-m", "tests.faults.storm", "--seed", seed, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    return done.stdout if done.returncode == 0 else f"FAILED with SHMCAM_SEED={seed}\n{done.stdout[-4000:]}"


@needs_faulty_disk
@pytest.mark.timeout(600)
def test_pairs_of_faults_leave_a_whole_service():
    assert storm("--minutes", "0", "--pairs", "4").endswith("all well\n")


@needs_faulty_disk
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_minutes_of_pairs_of_faults_leave_a_whole_service():
    assert storm("--minutes", "20").endswith("all well\n")
