"""Reads the signs of life that a process gives without the hub: its age, and the header of its ring.

The places in the header are those of shm_ring/layout.py, which is not imported: numpy would double this process's
memory. tests/shmcam/watchdog/test_liveness.py compares them.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from shmcam.config.settings import Settings
from shmcam.runtime.atomic_files import open_regular
from shmcam.runtime.procfs import start_of
from shmcam.runtime.supervisord import Program
from shmcam.watchdog.hang_detector import ProcessSigns

SHM_FOLDER = Path("/dev/shm")  # noqa: S108 - where shm_open(3) keeps its segments
HEADER = struct.Struct("=IIII I I 40x I 60x II")
"""magic, version, header_bytes, slot_header_bytes, slots, state, …, head, …, heartbeat_ms, writer_pid."""
MAGIC, VERSION, LIVE = 0x52474D53, 1, 1


def read_signs(programs: Iterable[Program], settings: Settings) -> dict[str, ProcessSigns]:
    """Returns the signs of life of each running program, by name."""
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    signs = {}
    for program in programs:
        if program.pid:
            ring = None
            role, _, camera = program.name.partition("-")
            if role == "capture":
                name = settings.ring_name(camera or settings.cameras[0])
                ring = read_ring_signs(SHM_FOLDER / name[1:], program.pid)
            signs[program.name] = ProcessSigns(program.pid, now_s - start_of(program.pid, now_s), ring)
    return signs


def read_ring_signs(path: Path, writer_pid: int) -> tuple[int, int] | None:
    """Returns what moves in a ring's header while its writer lives: count of frames, heartbeat.

    None: no ring that `writer_pid` of this user is writing.
    """
    try:
        with open_regular(path, 1 << 62) as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():  # anybody may put a file there
                return None
            magic, version, *_, state, head, heartbeat_ms, pid = HEADER.unpack(file.read(HEADER.size))
    except (OSError, struct.error):
        return None
    return (head, heartbeat_ms) if (magic, version, state, pid) == (MAGIC, VERSION, LIVE, writer_pid) else None
