"""Processes that were started and have not said a word yet: hung in an import, in a driver, or stopped. No I/O.

Time counts from when this watchdog first saw the process, not from supervisord's wall clock: a clock that is set at
boot must not look like a hang, and a restarted watchdog gives everyone the allowance once more.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from control.programs import FOR_ALL, PER_CAMERA
from control.watchdog.supervisord import Program
from control.watchdog.verdict import KILL_AGAIN_S, Verdict

ALIVE = frozenset({"RUNNING", "STARTING"})
SPEAKING = frozenset({*PER_CAMERA, *FOR_ALL}) - {"watchdog"}
"""Roles whose processes send heartbeats; a program of the user's own is expected to only once it has sent one."""


@dataclass
class Mute:
    """One process that is there and silent."""

    pid: int
    since_s: float
    reported: bool = False
    killed_s: float = -1e9


class Starts:
    """Who has not spoken since its start."""

    def __init__(self, allowance_s: float) -> None:
        self._allowance_s = allowance_s
        self._mute: dict[str, Mute] = {}
        self._spoke: set[str] = set()

    def heard(self, program: str) -> None:
        """Note that a program speaks; from its next start on it is expected to."""
        self._spoke.add(program)
        self._mute.pop(program, None)

    def forgive(self, now_s: float) -> None:
        """Count everyone's silence from now."""
        for mute in self._mute.values():
            mute.since_s = now_s

    def excuse(self, program: str, now_s: float) -> None:
        """Somebody else speaks for it: it runs behind a wrapper, and supervisord knows only that one's pid."""
        if mute := self._mute.get(program):
            mute.since_s = now_s

    def pass_over(self, programs: dict[str, Program], speaking: Container[str], now_s: float) -> list[Verdict]:
        """Look at everyone who is not among `speaking`."""
        expected = {
            name: program.pid
            for name, program in programs.items()
            if program.state in ALIVE and program.pid and name not in speaking and self._speaks(name)
        }
        self._mute = {
            name: known if (known := self._mute.get(name)) and known.pid == pid else Mute(pid, now_s)
            for name, pid in expected.items()
        }
        return [verdict for name, mute in self._mute.items() for verdict in self._look(name, mute, now_s)]

    def _speaks(self, program: str) -> bool:
        return program in self._spoke or program.partition("-")[0] in SPEAKING

    def _look(self, name: str, mute: Mute, now_s: float) -> list[Verdict]:
        silent_s = now_s - mute.since_s
        said = f"not a word since its start {silent_s:.0f} s ago"
        if silent_s > self._allowance_s and now_s - mute.killed_s >= KILL_AGAIN_S:
            mute.killed_s = now_s
            return [Verdict("kill", name, said, silent_s)]
        if silent_s > self._allowance_s / 2 and not mute.reported:
            mute.reported = True
            return [Verdict("stalled", name, said, silent_s)]
        return []
