"""Whose heartbeat is it? Supervisord knows its children by pid, and tells of a new one a little late. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from control.messages import Heartbeat
from control.watchdog.supervisord import Program

UNPLACED_S = 10.0
"""A heartbeat whose pid supervisord does not know by then is not of its children."""


class Hearing:
    """Heartbeats that wait to be given to a program, by pid."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Heartbeat, float, float]] = {}
        """The last heartbeat, when it came and when the first of this pid came."""
        self._orphans: set[int] = set()

    def heard(self, beat: Heartbeat, now_s: float) -> None:
        """Take a heartbeat."""
        _, _, first_s = self._waiting.get(beat.pid, (beat, now_s, now_s))
        self._waiting[beat.pid] = (beat, now_s, first_s)

    def placed(self, programs: dict[str, Program]) -> Iterator[tuple[str, Heartbeat, float]]:
        """Yield the program, its heartbeat and when that came, of those supervisord knows by now."""
        by_pid = {program.pid: name for name, program in programs.items() if program.pid}
        for pid in self._waiting.keys() & by_pid.keys():
            beat, heard_s, _ = self._waiting.pop(pid)
            yield by_pid[pid], beat, heard_s

    def strangers(self, now_s: float) -> Iterator[Heartbeat]:
        """Yield heartbeats that nobody's process has sent for too long, and forget them until their next one."""
        late = [pid for pid, (_, _, first_s) in self._waiting.items() if now_s - first_s > UNPLACED_S]
        for pid in late:
            yield self._waiting.pop(pid)[0]

    def first_told(self, beat: Heartbeat) -> bool:
        """Tell whether this stranger was never told of before."""
        new = beat.pid not in self._orphans
        self._orphans.add(beat.pid)
        return new
