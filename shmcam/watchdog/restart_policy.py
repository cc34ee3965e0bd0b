"""When to start a program again that supervisord has given up. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from shmcam.control.settings import ControlSettings
from shmcam.runtime.timers import Backoff

SETTLED_S = 60.0
"""A program that ran this long has recovered: its next failure starts with the short pause again."""


@dataclass
class Waiting:
    """One program that failed at least once."""

    backoff: Backoff
    due_s: float | None = None
    """When to start it; None: not given up now."""
    running_since_s: float | None = None


@dataclass
class Retries:
    """Pauses 10, 20, 40 … 300 s (as configured) between starts of a program in FATAL."""

    settings: ControlSettings
    _waiting: dict[str, Waiting] = field(default_factory=dict)

    def saw(self, program: str, state: str, now_s: float) -> float | None:
        """Note a program's state; return the pause before the next start if it has just been given up."""
        known = self._waiting.get(program)
        if state == "FATAL":
            if known is None:
                backoff = Backoff(self.settings.fatal_retry_s, self.settings.fatal_retry_max_s)
                known = self._waiting[program] = Waiting(backoff)
            known.running_since_s = None
            if known.due_s is None:
                pause_s = known.backoff.delay_s()
                known.due_s = now_s + pause_s
                return pause_s
        elif known is not None:
            self._recovering(program, known, state, now_s)
        return None

    def due(self, now_s: float) -> list[str]:
        """Return the programs to start now."""
        found = [name for name, known in self._waiting.items() if known.due_s is not None and known.due_s <= now_s]
        for name in found:
            self._waiting[name].due_s = None
        return found

    def _recovering(self, program: str, known: Waiting, state: str, now_s: float) -> None:
        known.due_s = None  # someone started it, or stopped it on purpose
        if state != "RUNNING":
            known.running_since_s = None
        elif known.running_since_s is None:
            known.running_since_s = now_s
        elif now_s - known.running_since_s > SETTLED_S:
            del self._waiting[program]
