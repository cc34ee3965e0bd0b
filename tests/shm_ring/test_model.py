"""The protocol model ring.pml, run exhaustively by spin; and every piece of the protocol left out once.

What it proves: under partial store order, freely reordered loads between fences, and a death at every step, no reader
accepts anything but one whole frame, and a published frame is refused only when it was overwritten. What it does not:
that the Python code is the model (test_stress.py and the forged headers look at the code), nor more than two laps.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("ring.pml")
ENDING = ("ENDING", "FRAMES=2")
"""Two frames are enough: nothing is overwritten there."""

pytestmark = pytest.mark.skipif(
    not (shutil.which("spin") and shutil.which("gcc")), reason="needs spin and gcc: apt install spin gcc"
)


def verify(folder: Path, *defines: str, level: str = "-O2") -> tuple[int, int, str]:
    """Returns: errors, states, what spin said. `level`: short searches are not worth the optimiser's time."""
    flags = [f"-D{define}" for define in defines]
    subprocess.run(["spin", *flags, "-a", str(MODEL)], cwd=folder, check=True, capture_output=True)
    subprocess.run(["gcc", level, "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"], cwd=folder, check=True)
    done = subprocess.run(["./pan", "-m1000000"], cwd=folder, check=True, capture_output=True, text=True)
    assert "max search depth too small" not in done.stdout
    errors = re.search(r"errors: (\d+)", done.stdout)
    states = re.search(r"(\d+) states, stored", done.stdout)
    return int(errors[1]), int(states[1]), done.stdout


def test_no_interleaving_and_no_death_lets_a_torn_frame_through(tmp_path):
    errors, states, said = verify(tmp_path, "CRASHES=1")
    assert errors == 0, said
    assert states > 1_000_000, "the model has shrunk: is it still the protocol?"


def test_who_sees_the_end_of_a_generation_sees_all_its_frames(tmp_path):
    errors, states, said = verify(tmp_path, "CRASHES=1", *ENDING)
    assert errors == 0, said
    assert states > 1_000, "the model has shrunk: is it still the protocol?"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", [("CRASHES=2",), ("CRASHES=1", "SLOTS=3", "FRAMES=5")], ids=str)
def test_the_same_with_more_deaths_and_more_slots(tmp_path, size):
    errors, _, said = verify(tmp_path, *size)
    assert errors == 0, said


@pytest.mark.parametrize(
    "left_out",
    [
        ("NO_FENCE_A",),
        ("NO_FENCE_D",),
        ("NO_FENCE_E",),
        ("NO_R3",),
        ("NO_LOCK",),
        # Fences B and C, R1 and the adoption of a whole frame are what protects a reader that does not ask head first:
        ("NO_HEAD_CHECK", "NO_FENCE_B"),
        ("NO_HEAD_CHECK", "NO_FENCE_C"),
        ("NO_HEAD_CHECK", "NO_R1"),
        ("NO_HEAD_CHECK", "NO_ADOPT"),
        (*ENDING, "NO_FENCE_F"),
        (*ENDING, "NO_ACQUIRE_F"),
    ],
    ids="+".join,
)
def test_the_model_notices_every_piece_that_is_left_out(tmp_path, left_out):
    errors, _, said = verify(tmp_path, "CRASHES=1", *left_out, level="-O0")
    assert errors == 1, said
    assert "assertion violated" in said
