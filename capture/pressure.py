"""What memory is left to this machine and to this process, and what capture does about it. Decisions are pure."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from capture.settings import CameraSettings

EXIT_MEMORY = 42
"""Not among supervisord.conf's exitcodes, so the process comes back, with its memory given back."""

MARGIN_PERCENT = 5.0
"""Swap must fall this far below a limit before the limit's effect ends, so that it does not flap."""

MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")


class Pressure(Enum):
    """What swap in use does to capture."""

    NONE = "none"
    SLOW = "slow"
    PAUSE = "pause"


def decide(swap_percent: float, before: Pressure, camera: CameraSettings) -> Pressure:
    """The state that follows from `swap_percent`, with hysteresis."""
    order = [Pressure.NONE, Pressure.SLOW, Pressure.PAUSE]
    limits = [0.0, camera.swap_slow_percent, camera.swap_pause_percent]
    level = max(i for i in range(3) if i == 0 or swap_percent >= limits[i])
    held = max(i for i in range(3) if i == 0 or swap_percent >= limits[i] - MARGIN_PERCENT)
    return order[max(level, min(held, order.index(before)))]


def swap_percent(meminfo: Path | None = None) -> float:
    """Swap in use, 0..100; 0 where there is none."""
    found = _kilobytes(meminfo or MEMINFO)
    total = found.get("SwapTotal", 0)
    return 100 * (total - found.get("SwapFree", 0)) / total if total else 0.0


def own_megabytes(status: Path = STATUS) -> float:
    """Resident memory of this process in MB, without the rings (which are shared, and sized on purpose)."""
    found = _kilobytes(status)
    return (found.get("RssAnon", 0) + found.get("RssFile", 0)) * 1024 / 1e6


def _kilobytes(file: Path) -> dict[str, int]:
    """The `Name:  123 kB` lines of a proc file."""
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}
