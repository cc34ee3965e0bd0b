"""Every decision of the watchdog to report, kill or restart a process; no I/O, no clock.

It is made from the heartbeats that come through the hub, supervisord's states, and what a process shows without the
hub (`ProcessSigns`):

- A process of ours must send its first heartbeat soon after its start (hung in an import, in a driver, or stopped),
  and one that has sent a heartbeat must go on sending them. Programs that never send one (a user's own) are left alone.
- A loop that turns but publishes no frame although its state is running counts as hanging too.
- Time counts from when this watchdog first saw the process, not from supervisord's wall clock: a clock that is set at
  boot must not look like a hang. What ran long before a restarted watchdog is not given the time of a start again.
- The hub is alive while the watchdog's own heartbeat comes back through it. Without the hub no heartbeat arrives, and
  the silence of each process stands still until the hub's return. It is not forgiven: a process that is stopped while
  the hub keeps dying is replaced all the same.
- The ring is the second witness of its writer: capture stores a frame or a heartbeat there on each turn of its loop.
  A ring that stands still means that capture hangs, with or without a hub.
- If every process falls silent at once, the host was stopped or starved: one more period passes before a kill. The
  same if the watchdog itself did not run.
- Heartbeats name their process by pid. supervisord knows its children by pid, and tells of a new one a little late; a
  pid that it does not know for longer belongs to a process that supervisord did not start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from shmcam.config.optional_program import optional_programs
from shmcam.config.settings import FOR_ALL, PER_CAMERA
from shmcam.control.messages import Heartbeat
from shmcam.control.settings import ControlSettings
from shmcam.runtime.supervisord import Program

HUB = "hub"
WATCHDOG = "watchdog"
ALIVE = frozenset({"RUNNING", "STARTING"})
BEATING = frozenset({*PER_CAMERA, *FOR_ALL}) - {WATCHDOG}
"""Roles whose processes send heartbeats, beside optional programs; one of the user's own must once it has sent one."""

KILL_AGAIN_S = 5.0
"""A process that is still there so long after it was killed is killed again: supervisord may not have heard us."""
OWN_PAUSE_S = 2.5
"""A check comes every half second; one this late means that the watchdog did not run either."""
UNKNOWN_PID_S = 10.0
"""A heartbeat whose pid supervisord does not know by then is not of its children."""
END_S = 10.0
"""A process that was asked to end is killed after this long; supervisord's stopwaitsecs is 5 s."""
EXPOSURES = 3
"""A frame may take so many exposure times more: libcamera has several frames in flight."""
MIB = 1024 * 1024


class Action(Struct, frozen=True):
    """A decision about one program; `shmcam.watchdog.watchdog` carries it out."""

    kind: Literal["grace", "hub_stalled", "stalled", "kill", "storm", "too_big", "stranger"]
    program: str
    reason: str
    silent_s: float = 0.0
    used_mb: float = 0.0
    limit_mb: float = 0.0


class ProcessSigns(Struct, frozen=True):
    """What a process shows without the hub."""

    pid: int
    age_s: float
    """Time since its start."""
    ring: tuple[int, int] | None
    """What moves in the header of the ring that it writes; None: it writes none."""


@dataclass
class WatchedProcess:
    """The signs of life of one process."""

    pid: int
    heard_s: float
    """Time of its last heartbeat; before the first one, time at which this watchdog first saw the process."""
    startup_s: float = 0.0
    """Time that it has for its first heartbeat."""
    ring: tuple[int, int] | None = None
    ring_s: float = 0.0
    """Time at which its ring last moved."""
    beat: Heartbeat | None = None
    """Its last heartbeat."""
    frames: int = -1
    """Published frames of a capture process that says it is running; -1: not counted."""
    frames_s: float = 0.0
    """Time at which its frame count last moved."""
    exposure_s: float = 0.0
    reported: bool = False
    asked_s: float | None = None
    """Time at which it was asked to end."""
    killed_s: float = -1e9
    """Time at which it was last killed."""

    def update(self, beat: Heartbeat, heard_s: float) -> None:
        """Notes a heartbeat."""
        self.beat, self.heard_s = beat, heard_s
        frames = beat.figures.get("frames")
        if beat.role != "capture" or not isinstance(frames, int) or beat.state != "running":
            self.frames, self.frames_s = -1, heard_s
        elif frames != self.frames:
            self.frames, self.frames_s = frames, heard_s
        exposure_us = beat.figures.get("exposure_us")
        self.exposure_s = exposure_us / 1e6 if isinstance(exposure_us, int | float) else 0.0

    def watch_ring(self, ring: tuple[int, int] | None, now_s: float) -> None:
        """Notes what its ring shows now."""
        if ring is None or ring != self.ring:
            self.ring, self.ring_s = ring, now_s

    def suspend(self, left_out_s: float, now_s: float) -> None:
        """Leaves a time in which no heartbeat could arrive out of its silence."""
        self.heard_s = min(now_s, self.heard_s + left_out_s)
        self.frames_s = min(now_s, self.frames_s + left_out_s)

    def frameless_s(self, now_s: float) -> float:
        """Returns how long it has published nothing although it says it runs, less the exposure times.

        No longer than its silence where no frames are counted: every heartbeat is one then.
        """
        return now_s - self.frames_s - EXPOSURES * self.exposure_s

    def kill(self, now_s: float) -> bool:
        """Notes a kill. Returns: False if the one before was too short ago."""
        if now_s - self.killed_s < KILL_AGAIN_S:
            return False
        self.killed_s = now_s
        return True


class UnassignedBeat(Struct, frozen=True):
    """The last heartbeat of a pid that supervisord does not know yet."""

    beat: Heartbeat
    heard_s: float
    first_s: float
    """Time of the first heartbeat of this pid."""


@dataclass
class HangDetector:
    """Takes heartbeats, ends of processes and time; returns actions."""

    settings: ControlSettings
    _processes: dict[str, WatchedProcess] = field(default_factory=dict)
    _have_beaten: set[str] = field(default_factory=set)
    """Programs that sent a heartbeat once; after their next start they are expected to."""
    _unassigned: dict[int, UnassignedBeat] = field(default_factory=dict)
    _strangers: set[int] = field(default_factory=set)
    """Reported pids of processes that supervisord did not start."""
    _ends_s: dict[str, deque[float]] = field(default_factory=dict)
    _echo_s: float | None = None
    """Time at which the watchdog's own heartbeat last came back through the hub."""
    _hub_reported: bool = False
    _is_deaf: bool = False
    """True from the hub's end or silence until the next echo: no heartbeat can arrive."""
    _hub_back_s: float = -1e9
    """Time of the first echo after that."""
    _checked_s: float | None = None
    _paused_s: float = -1e9
    _suspended_s: float = -1e9
    """Up to here no silence counts."""
    _grace_given: bool = False

    def hear(self, beat: Heartbeat, now_s: float) -> None:
        """Notes a heartbeat that came through the hub."""
        if beat.role == WATCHDOG:
            if self._is_deaf:
                self._hub_back_s = now_s
            self._echo_s, self._hub_reported, self._is_deaf = now_s, False, False
            return
        earlier = self._unassigned.get(beat.pid)
        self._unassigned[beat.pid] = UnassignedBeat(beat, now_s, earlier.first_s if earlier else now_s)

    def end(self, program: str, now_s: float, *, expected: bool) -> list[Action]:
        """Notes that a process ended; too many unexpected ends in a row are a storm, reported once per window."""
        self._processes.pop(program, None)
        if expected:
            return []
        count, window_s = self.settings.storm_restarts, self.settings.storm_window_s
        ends_s = self._ends_s.setdefault(program, deque(maxlen=count))
        ends_s.append(now_s)
        if len(ends_s) < count or now_s - ends_s[0] > window_s:
            return []
        ends_s.clear()
        reason = f"{program} ended {count} times within {window_s:.0f} s; see: shmcam logs {program}"
        return [Action("storm", program, reason)]

    def check(
        self, programs: Mapping[str, Program], now_s: float, signs: Mapping[str, ProcessSigns] | None = None
    ) -> list[Action]:
        """Decides what to do now; called every half second, with the programs as supervisord sees them."""
        self._assign_heartbeats(programs)
        strangers = self._find_strangers(programs, now_s) if programs else []
        self._follow_processes(programs, now_s, signs or {})
        checked_s = self._checked_s or now_s
        if self._was_paused(now_s):
            self._suspend_clocks(checked_s, now_s)
            self._suspend_rings(now_s - checked_s, now_s)
            self._echo_s = now_s
            return [*strangers, Action("grace", "", "the watchdog itself was stopped or starved")]
        hub = programs.get(HUB)
        if hub is None or hub.state != "RUNNING" or self._echo_s is None:
            self._suspend_clocks(-1e9 if self._echo_s is None else self._echo_s, now_s)
            self._echo_s, self._is_deaf = now_s, True
            return strangers + self._check_rings(now_s)
        if self._is_deaf or now_s - self._echo_s > self.settings.hang_report_s:
            self._suspend_clocks(self._echo_s, now_s)
            self._is_deaf = True
            hub_silent_s = now_s - self._echo_s
            of_hub = self._check_hub(hub_silent_s, now_s) if hub_silent_s > self.settings.hang_report_s else []
            return strangers + of_hub + self._check_rings(now_s)
        return strangers + self._check_processes(now_s)

    # ---- which process is which

    def _assign_heartbeats(self, programs: Mapping[str, Program]) -> None:
        """Gives each heartbeat to the program whose pid it bears, as far as supervisord knows that by now."""
        names = {program.pid: name for name, program in programs.items() if program.pid}
        for pid in self._unassigned.keys() & names.keys():
            name, waiting = names[pid], self._unassigned.pop(pid)
            process = self._processes.get(name)
            if process is None or process.pid != pid:
                process = self._processes[name] = WatchedProcess(pid, waiting.heard_s)
            process.update(waiting.beat, waiting.heard_s)
            self._have_beaten.add(name)
            self._grace_given = False

    def _find_strangers(self, programs: Mapping[str, Program], now_s: float) -> list[Action]:
        """Reports processes that call themselves one of supervisord's and are not: they hold what the real one needs.

        A program may also run behind a wrapper whose pid is the one that supervisord knows: it is not silent then.
        """
        actions = []
        late = [pid for pid, waiting in self._unassigned.items() if now_s - waiting.first_s > UNKNOWN_PID_S]
        for pid in late:
            beat = self._unassigned.pop(pid).beat
            for name in (beat.role, f"{beat.role}-{beat.camera}"):
                if (process := self._processes.get(name)) is not None and process.beat is None:
                    process.heard_s = now_s
            if beat.role in programs and pid not in self._strangers:
                self._strangers.add(pid)
                reason = f"pid {pid} says it is {beat.role}, but supervisord did not start it; type: kill {pid}"
                actions.append(Action("stranger", beat.role, reason))
        return actions

    def _follow_processes(
        self, programs: Mapping[str, Program], now_s: float, signs: Mapping[str, ProcessSigns]
    ) -> None:
        """Forgets processes that are gone; begins to watch new ones of which heartbeats are expected."""
        for name, process in list(self._processes.items()):
            program = programs.get(name)
            if program is None or program.pid != process.pid or (process.beat is None and program.state not in ALIVE):
                del self._processes[name]
        beating = BEATING | optional_programs().keys()
        for name, program in programs.items():
            expected = name in self._have_beaten or name.partition("-")[0] in beating
            if expected and program.pid and program.state in ALIVE and name not in self._processes:
                sign = signs.get(name)
                age_s = sign.age_s if sign and sign.pid == program.pid else 0.0
                self._processes[name] = WatchedProcess(program.pid, now_s, self._find_startup_s(age_s))
        for name, process in self._processes.items():
            sign = signs.get(name)
            process.watch_ring(sign.ring if sign and sign.pid == process.pid else None, now_s)

    def _find_startup_s(self, age_s: float) -> float:
        """Returns how long a process of this age may go on without a first heartbeat.

        One whose start should be over was heard by an earlier watchdog; or it runs behind a wrapper, which
        `_find_strangers` has to find out first.
        """
        running_s = max(self.settings.hang_kill_s, 2 * UNKNOWN_PID_S)
        return max(self.settings.startup_s - age_s, min(self.settings.startup_s, running_s))

    # ---- pauses of the watchdog, the host or the hub

    def _was_paused(self, now_s: float) -> bool:
        """Tells whether the watchdog itself did not run; once per period, as one that is always late must still act."""
        pause_s = now_s - (self._checked_s or now_s)
        self._checked_s = now_s
        if pause_s <= OWN_PAUSE_S or now_s - self._paused_s <= 2 * self.settings.hang_kill_s:
            return False
        self._paused_s = now_s
        return True

    def _suspend_clocks(self, since_s: float, now_s: float) -> None:
        """Leaves the time since then out of every process's silence: its heartbeats could not arrive."""
        since_s = max(since_s, self._suspended_s)
        self._suspended_s = now_s
        for process in self._processes.values():
            process.suspend(now_s - since_s, now_s)

    def _suspend_rings(self, left_out_s: float, now_s: float) -> None:
        """Leaves a time in which the whole machine may have stood still out of the silence of the rings."""
        for process in self._processes.values():
            process.ring_s = min(now_s, process.ring_s + left_out_s)

    def _check_hub(self, silent_s: float, now_s: float) -> list[Action]:
        actions = []
        if not self._hub_reported:
            self._hub_reported = True
            actions.append(Action("hub_stalled", HUB, f"no echo for {silent_s:.1f} s", silent_s))
        if silent_s > self.settings.hang_kill_s:
            self._echo_s = now_s
            actions.append(Action("kill", HUB, f"no echo for {silent_s:.0f} s", silent_s))
        return actions

    # ---- single processes

    def _check_processes(self, now_s: float) -> list[Action]:
        beating = [process for process in self._processes.values() if process.beat is not None]
        silent = [process for process in beating if now_s - process.heard_s > self.settings.hang_report_s]
        if len(silent) >= 2 and len(silent) == len(beating) and not self._grace_given:
            self._grace_given = True
            since_s = max(process.heard_s for process in silent)
            self._suspend_clocks(since_s, now_s)
            self._suspend_rings(now_s - since_s, now_s)
            return [Action("grace", "", "every process fell silent at once")]
        actions = self._check_rings(now_s)
        for name, process in self._processes.items():
            if process.beat is None:
                actions += self._check_start(name, process, now_s)
            elif self._is_too_big(process.beat):
                actions += self._end_too_big(name, process, process.beat.rss_bytes / MIB, now_s)
            else:
                actions += self._check_signs_of_life(name, process, now_s)
        return actions

    def _check_start(self, name: str, process: WatchedProcess, now_s: float) -> list[Action]:
        """Checks a process that has sent no heartbeat yet."""
        silent_s, limit_s = now_s - process.heard_s, process.startup_s
        reason = f"not a word for {silent_s:.0f} s, and its start should be over"
        if silent_s > limit_s:
            # Its first heartbeat may have met with the end of the hub: there is time for the next one.
            is_back = now_s - self._hub_back_s > self.settings.hang_report_s
            return [Action("kill", name, reason, silent_s)] if is_back and process.kill(now_s) else []
        if silent_s > limit_s / 2 and not process.reported:
            process.reported = True
            return [Action("stalled", name, reason, silent_s)]
        return []

    def _is_too_big(self, beat: Heartbeat) -> bool:
        return 0 < self.settings.memory_limit_mb * MIB < beat.rss_bytes

    def _end_too_big(self, name: str, process: WatchedProcess, used_mb: float, now_s: float) -> list[Action]:
        """Asks a process to end, once, for supervisord to start it again; kills one that does not."""
        if process.asked_s is None:
            process.asked_s = now_s
            limit_mb = float(self.settings.memory_limit_mb)
            return [Action("too_big", name, "memory", used_mb=used_mb, limit_mb=limit_mb)]
        if now_s - process.asked_s > END_S and process.kill(now_s):
            return [Action("kill", name, "too much memory, and it does not end when asked")]
        return []

    def _check_rings(self, now_s: float) -> list[Action]:
        """Checks the writers of rings by what all readers see, which needs no hub."""
        actions = []
        for name, process in self._processes.items():
            silent_s = now_s - process.ring_s
            if process.ring is not None and silent_s > self.settings.hang_kill_s and process.kill(now_s):
                reason = f"neither frame nor heartbeat in its ring for {silent_s:.0f} s"
                actions.append(Action("kill", name, reason, silent_s))
        return actions

    def _check_signs_of_life(self, name: str, process: WatchedProcess, now_s: float) -> list[Action]:
        silent_s, frameless_s = now_s - process.heard_s, process.frameless_s(now_s)
        longest_s, report_s, kill_s = max(silent_s, frameless_s), self.settings.hang_report_s, self.settings.hang_kill_s
        if longest_s > kill_s:
            lacks = "no sign of life for" if silent_s > kill_s else "says it runs, but no new frame for"
            hung_s = silent_s if silent_s > kill_s else frameless_s
            # It stays watched until it is gone.
            return [Action("kill", name, f"{lacks} {hung_s:.0f} s", hung_s)] if process.kill(now_s) else []
        was_reported, process.reported = process.reported, longest_s > report_s
        if was_reported or not process.reported:
            return []
        lacks = "no sign of life" if silent_s > report_s else "no new frame"
        return [Action("stalled", name, f"{lacks} for {longest_s:.1f} s", longest_s)]
