"""Who hangs, who storms, who is too big: decided from heartbeats and supervisord's states alone. No I/O, no clock.

Rules:
- A process of ours must speak soon after its start (`Starts`), and one that has sent a heartbeat must
  go on sending them; programs that never speak to the hub (a user's own) are left alone.
- A loop that turns but publishes no frame although it says it is running counts as hanging too.
- If everything falls silent at once, the host was stopped or starved: one more period passes before anyone is killed.
  The same if we ourselves slept.

Processes that were started and have not said a word yet: hung in an import, in a driver, or stopped. No I/O.

Time counts from when this watchdog first saw the process, not from supervisord's wall clock: a clock that is set at
boot must not look like a hang, and a restarted watchdog gives everyone the allowance once more.

What the watchdog has to say or do about one program.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Literal

from shmcam.control.messages import Heartbeat
from shmcam.control.settings import ControlSettings
from shmcam.runtime.programs import FOR_ALL, PER_CAMERA
from shmcam.watchdog.supervisord import Program

KILL_AGAIN_S = 5.0
"""A process that is still there so long after it was killed is killed again: supervisord may not have heard us."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Decided by `shmcam.watchdog.hang_detector`, carried out by `shmcam.watchdog.watchdog`."""

    kind: Literal["stalled", "kill", "storm", "too_big", "grace"]
    program: str
    reason: str
    silent_s: float = 0.0
    measured: float = 0.0
    limit: float = 0.0


ALIVE = frozenset({"RUNNING", "STARTING"})
SPEAKING = frozenset({*PER_CAMERA, *FOR_ALL}) - {"watchdog"}
"""Roles whose processes send heartbeats; a program of the user's own is expected to only once it has sent one."""


@dataclass
class SilentProcess:
    """One process that is there and silent."""

    pid: int
    since_s: float
    reported: bool = False
    killed_s: float = -1e9


class StartupDeadline:
    """Who has not spoken since its start."""

    def __init__(self, allowance_s: float) -> None:
        self._allowance_s = allowance_s
        self._mute: dict[str, SilentProcess] = {}
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
            name: known if (known := self._mute.get(name)) and known.pid == pid else SilentProcess(pid, now_s)
            for name, pid in expected.items()
        }
        return [verdict for name, mute in self._mute.items() for verdict in self._look(name, mute, now_s)]

    def _speaks(self, program: str) -> bool:
        return program in self._spoke or program.partition("-")[0] in SPEAKING

    def _look(self, name: str, mute: SilentProcess, now_s: float) -> list[Verdict]:
        silent_s = now_s - mute.since_s
        said = f"not a word since its start {silent_s:.0f} s ago"
        if silent_s > self._allowance_s and now_s - mute.killed_s >= KILL_AGAIN_S:
            mute.killed_s = now_s
            return [Verdict("kill", name, said, silent_s)]
        if silent_s > self._allowance_s / 2 and not mute.reported:
            mute.reported = True
            return [Verdict("stalled", name, said, silent_s)]
        return []


OWN_PAUSE_S = 2.5
"""A pass comes every half second; one this late means that we were not running either."""

EXPOSURES_FORGIVEN = 3
MIB = 1024 * 1024


@dataclass
class WatchedProcess:
    """What is known of one process."""

    pid: int
    beat: Heartbeat
    beat_s: float
    """When its last heartbeat came."""
    frames: int = -1
    frames_s: float = 0.0
    """When its frame count last moved."""
    exposure_s: float = 0.0
    """A frame may take a few of these more (libcamera has several in flight)."""
    reported: bool = False
    killed_s: float = -1e9
    """When it was last killed; a process that is still there is killed again."""


@dataclass
class HangDetector:
    """Give it heartbeats, state changes and time; it gives back verdicts."""

    settings: ControlSettings
    watched: dict[str, WatchedProcess] = field(default_factory=dict)
    _ended_s: dict[str, deque[float]] = field(default_factory=dict)
    _last_pass_s: float | None = None
    _slept_s: float = -1e9
    _graced: bool = False
    starts: StartupDeadline = field(init=False)

    def __post_init__(self) -> None:
        self.starts = StartupDeadline(self.settings.startup_s)

    def heard(self, program: str, beat: Heartbeat, now_s: float) -> None:
        """Note a heartbeat."""
        self._graced = False
        self.starts.heard(program)
        known = self.watched.get(program)
        if known is None or known.pid != beat.pid:
            known = self.watched[program] = WatchedProcess(beat.pid, beat, now_s)
        known.beat, known.beat_s = beat, now_s
        frames = beat.figures.get("frames", -1)
        if beat.role != "capture" or not isinstance(frames, int) or beat.state != "running":
            known.frames, known.frames_s = -1, now_s
        elif frames != known.frames:
            known.frames, known.frames_s = frames, now_s
        exposure_us = beat.figures.get("exposure_us", 0)
        known.exposure_s = exposure_us / 1e6 if isinstance(exposure_us, int | float) else 0.0

    def ended(self, program: str, now_s: float, *, asked: bool) -> list[Verdict]:
        """Note that a program is gone; too many unasked ends in a row are a storm, told once per window."""
        self.watched.pop(program, None)
        if asked:
            return []
        ends = self._ended_s.setdefault(program, deque(maxlen=self.settings.storm_restarts))
        ends.append(now_s)
        window_s = self.settings.storm_window_s
        if len(ends) < self.settings.storm_restarts or now_s - ends[0] > window_s:
            return []
        ends.clear()
        said = f"ended {self.settings.storm_restarts} times within {window_s:.0f} s; see: shmcam logs {program}"
        return [Verdict("storm", program, said)]

    def pass_over(self, programs: dict[str, Program], now_s: float) -> list[Verdict]:
        """Look at everyone; call it every half second, with the programs as supervisord sees them."""
        slept = (
            now_s - (self._last_pass_s or now_s) > OWN_PAUSE_S and now_s - self._slept_s > 2 * self.settings.hang_kill_s
        )
        self._last_pass_s = now_s
        for name in [n for n, w in self.watched.items() if n not in programs or programs[n].pid != w.pid]:
            del self.watched[name]  # another process now, or none: its first heartbeat begins anew
        if slept:
            self._slept_s = now_s  # once per period: a watchdog that is always late must still act
            return self._grace(now_s, "the watchdog itself was stopped or starved")
        silent = [w for w in self.watched.values() if now_s - w.beat_s > self.settings.hang_report_s]
        if len(silent) >= 2 and len(silent) == len(self.watched) and not self._graced:
            self._graced = True
            return self._grace(now_s, "every process fell silent at once")
        found = [verdict for name in list(self.watched) for verdict in self._look(name, now_s)]
        return found + self.starts.pass_over(programs, self.watched, now_s)

    def forgive(self, now_s: float) -> None:
        """Count everyone's silence from now: their heartbeats could not reach us."""
        for known in self.watched.values():
            known.beat_s = known.frames_s = now_s
        self.starts.forgive(now_s)

    def _grace(self, now_s: float, why: str) -> list[Verdict]:
        self.forgive(now_s)
        return [Verdict("grace", "", why)]

    def _look(self, name: str, now_s: float) -> list[Verdict]:
        known, settings = self.watched[name], self.settings
        silent_s, still_s = now_s - known.beat_s, _still_s(known, now_s)
        limit_b = settings.memory_limit_mb * MIB
        if limit_b and known.beat.rss_bytes > limit_b:
            del self.watched[name]
            used = known.beat.rss_bytes / MIB
            return [Verdict("too_big", name, "memory", measured=used, limit=float(settings.memory_limit_mb))]
        if max(silent_s, still_s) <= settings.hang_kill_s:
            return self._report(name, known, silent_s, still_s)
        if now_s - known.killed_s < KILL_AGAIN_S:
            return []
        known.killed_s = now_s  # it stays watched until it is gone
        if silent_s > settings.hang_kill_s:
            return [Verdict("kill", name, f"no sign of life for {silent_s:.0f} s", silent_s)]
        return [Verdict("kill", name, f"says it runs, but no new frame for {still_s:.0f} s", still_s)]

    def _report(self, name: str, known: WatchedProcess, silent_s: float, still_s: float) -> list[Verdict]:
        limit_s = self.settings.hang_report_s
        stalled = max(silent_s, still_s) > limit_s
        if stalled == known.reported:
            return []
        known.reported = stalled
        if not stalled:
            return []
        said = "no sign of life" if silent_s > limit_s else "no new frame"
        return [Verdict("stalled", name, f"{said} for {max(silent_s, still_s):.1f} s", max(silent_s, still_s))]


def _still_s(known: WatchedProcess, now_s: float) -> float:
    """Return how long a capture process that says it runs has published nothing, exposure times forgiven."""
    return now_s - known.frames_s - EXPOSURES_FORGIVEN * known.exposure_s if known.frames >= 0 else 0.0
