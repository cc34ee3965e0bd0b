"""How old a file is, told so that no jump of the wall clock can make it older.

Library time counts seconds that really passed: within one boot by the kernel's clock, which never steps. What passed
while the machine was off is only known from the wall clock; of that at most one day is believed at a time, because a
clock that comes up wrong would otherwise age everything by years and retention would delete it. The price: files on a
machine that was off for a month live on for up to a month longer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BELIEVED_OFF_S = 86_400.0
"""Seconds; longest time a machine is believed to have been switched off."""


WRITTEN_S = 10.0
"""Seconds between two readings that are written down: the most that a power cut makes files younger."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """All clocks at one moment."""

    boot: str
    """The kernel's name of this boot."""
    up_s: float
    """Seconds since that boot, sleep included (CLOCK_BOOTTIME)."""
    wall_s: float
    """Seconds since 1970 by the wall clock."""


def read_clock() -> ClockReading:
    """The clocks now."""
    return ClockReading(_boot(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


def advance_library_s(library_s: float, before: ClockReading | None, now: ClockReading) -> float:
    """Library time now, given what it was at the reading `before`."""
    if before is None:
        return library_s
    if before.boot == now.boot:
        return library_s + max(0.0, now.up_s - before.up_s)
    off_s = now.wall_s - before.wall_s - now.up_s
    return library_s + now.up_s + min(max(0.0, off_s), BELIEVED_OFF_S)


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
