"""Frames that check themselves, and writer processes to kill; shared by the tests of this folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from shm_ring import FrameMeta, RingWriter

REPOSITORY = Path(__file__).parents[2]


def meta(number: int, **more) -> FrameMeta:
    """Metadata of frame `number` of a 100 fps camera."""
    return FrameMeta(number, number * 10_000_000, 1_700_000_000_000_000_000 + number * 10_000_000, **more)


def pattern(number: int, size: int) -> np.ndarray:
    """Bytes that all depend on the frame number, so that a mixture of two frames shows anywhere."""
    return np.full(-(-size // 4), (number * 2654435761 + 1) & 0xFFFFFFFF, np.uint32).view(np.uint8)[:size]


def is_torn(payload: np.ndarray, number: int) -> bool:
    """Whether any word of the payload is not frame `number`'s; sizes are multiples of 4."""
    return bool((payload.view(np.uint32) != ((number * 2654435761 + 1) & 0xFFFFFFFF)).any())


def write_for_ever(name: str, folder: str, slots: int, size: int, pause_s: float) -> None:
    """The body of a writer process: self-checking frames until it is killed, ids going on where the last stopped."""
    import time

    writer = RingWriter.create(
        name, slots=slots, payload_bytes=size, lock_dir=Path(folder), camera="cam0", stream="main"
    )
    print("ready", flush=True)
    while True:
        with writer.slot() as slot:
            number = writer.next_frame_id
            middle = size // 8 * 4
            frame = pattern(number, size)
            slot.payload[:middle] = frame[:middle]  # in two halves, so that a kill can fall between them
            slot.payload[middle:] = frame[middle:]
            slot.meta = meta(number)
        if pause_s:
            time.sleep(pause_s)


def start_writer(name: str, folder: Path, *, slots: int = 4, size: int = 65536, pause_s: float = 0.0):
    """Start `write_for_ever` in a process; returns once it writes."""
    call = f"write_for_ever({name!r}, {str(folder)!r}, {slots}, {size}, {pause_s})"
    code = f"from tests.shm_ring.frames import write_for_ever; {call}"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process
