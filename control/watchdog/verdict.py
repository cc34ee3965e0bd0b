"""What the watchdog has to say or do about one program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KILL_AGAIN_S = 5.0
"""A process that is still there so long after it was killed is killed again: supervisord may not have heard us."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Decided by `control.watchdog.judge`, carried out by `control.watchdog.loop`."""

    kind: Literal["stalled", "kill", "storm", "too_big", "grace"]
    program: str
    reason: str
    silent_s: float = 0.0
    measured: float = 0.0
    limit: float = 0.0
