"""The times at which programs that supervisord has given up are started again. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from shmcam.control.settings import ControlSettings
from shmcam.runtime.timers import Backoff

RECOVERED_S = 60.0
"""A program that ran this long has recovered: its next failure starts with the short pause again."""


@dataclass
class FailedProgram:
    """A program that failed at least once."""

    backoff: Backoff
    due_s: float | None = None
    """Time of the next start; None: supervisord has not given it up now."""
    running_since_s: float | None = None


@dataclass
class RestartPolicy:
    """Pauses 10, 20, 40 … 300 s (as configured) between starts of a program in FATAL."""

    settings: ControlSettings
    _failed: dict[str, FailedProgram] = field(default_factory=dict)

    def note_state(self, name: str, state: str, now_s: float) -> float | None:
        """Notes a program's state. Returns: the pause before its next start if it has just been given up."""
        program = self._failed.get(name)
        if state == "FATAL":
            if program is None:
                backoff = Backoff(self.settings.fatal_retry_s, self.settings.fatal_retry_max_s)
                program = self._failed[name] = FailedProgram(backoff)
            program.running_since_s = None
            if program.due_s is None:
                pause_s = program.backoff.next_delay_s()
                program.due_s = now_s + pause_s
                return pause_s
        elif program is not None:
            self._note_recovery(name, program, state, now_s)
        return None

    def take_due(self, now_s: float) -> list[str]:
        """Returns the programs to start now, each once."""
        due = [name for name, program in self._failed.items() if program.due_s is not None and program.due_s <= now_s]
        for name in due:
            self._failed[name].due_s = None
        return due

    def _note_recovery(self, name: str, program: FailedProgram, state: str, now_s: float) -> None:
        program.due_s = None  # someone started it, or stopped it on purpose
        if state != "RUNNING":
            program.running_since_s = None
        elif program.running_since_s is None:
            program.running_since_s = now_s
        elif now_s - program.running_since_s > RECOVERED_S:
            del self._failed[name]
