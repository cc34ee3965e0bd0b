"""What the watchdog does all day: listens to supervisord and the hub, judges twice a second, acts.

What the watchdog does about a verdict: it tells everyone, and asks supervisord.

Whose heartbeat is it? Supervisord knows its children by pid, and tells of a new one a little late. No I/O.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol as Interface

from shmcam.control.client import ControlClient
from shmcam.control.messages import Event, Failed, Heartbeat, MemoryHigh, ProcessDown, ProcessStalled, ProcessUp
from shmcam.control.settings import ControlSettings
from shmcam.runtime.stop import Stop
from shmcam.watchdog.hang_detector import HangDetector, Verdict
from shmcam.watchdog.restart_policy import Retries
from shmcam.watchdog.supervisord import DONE, READY, Happened, Program, Protocol, Supervisord, SupervisordError

log = logging.getLogger(__name__)


class Actions:
    """Carries out; decides nothing."""

    def __init__(self, control: ControlClient, supervisord: Supervisord) -> None:
        self._control, self._supervisord = control, supervisord
        self.programs: Mapping[str, Program] = {}
        """As supervisord told them last: it wants to hear the whole name of each."""

    def act(self, verdict: Verdict) -> None:
        """Carry one verdict out."""
        program, reason = verdict.program, verdict.reason
        if verdict.kind == "grace":
            log.warning("waiting one more period: %s", reason)
        elif verdict.kind == "stalled":
            self.tell(ProcessStalled(program=program, silent_s=verdict.silent_s, reason=reason), logging.ERROR)
        elif verdict.kind == "storm":
            self.tell(Failed(what=f"{program} {reason}", program=program), logging.ERROR)
        elif verdict.kind == "too_big":
            event = MemoryHigh(program=program, action="restart", used=verdict.measured, limit=verdict.limit)
            self.tell(event, logging.ERROR)
            self._ask(self._supervisord.stop, program)
            self.start(program)
        else:
            self.tell(Failed(what=f"{program} killed: {reason}", program=program), logging.ERROR)
            self._ask(self._supervisord.kill, program)

    def start(self, program: str) -> None:
        """Start what supervisord gave up."""
        log.info("starting program=%s", program)
        self._ask(self._supervisord.start, program)

    def tell(self, event: Event, level: int) -> None:
        """Log and announce an event."""
        log.log(level, "%s", event)
        self._control.announce(event)

    def _ask(self, what: Callable[[str], None], program: str) -> None:
        known = self.programs.get(program)
        try:
            what(known.full_name if known else program)
        except SupervisordError as problem:
            log.error("program=%s: %s", program, problem)


UNPLACED_S = 10.0
"""A heartbeat whose pid supervisord does not know by then is not of its children."""


class HeartbeatSource:
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


PASS_S = 0.5
LIST_S = 3.0
"""How often supervisord is asked for the state of every program; its events ask at once."""

HUB = "hub"
DOWN = ("EXITED", "STOPPED", "BACKOFF", "FATAL")


class Files(Interface):
    """The part of `shmcam.watchdog.program_files.ProgramFiles` that is used here."""

    def refresh(self) -> None:
        """Bring the programs of further cameras in line with config.toml."""


class Watchdog:
    """One supervisord, one hub."""

    def __init__(
        self,
        control: ControlClient,
        supervisord: Supervisord,
        settings: ControlSettings,
        files: Files,
        answer: Callable[[bytes], None],
    ) -> None:
        self._control = control
        self._supervisord = supervisord
        self._hands = Actions(control, supervisord)
        self._files = files
        self._answer = answer
        self._judge = HangDetector(settings)
        self._retries = Retries(settings)
        self._settings = settings
        self._programs: dict[str, Program] = {}
        self._echo_s = time.monotonic()
        """When our own heartbeat last came back through the hub: then it is alive."""
        self._hub_told = False
        self._listed_s = 0.0
        self._hearing = HeartbeatSource()
        self._deaf = False

    def watch(self, events: int, stop: Stop) -> None:
        """Work until stop is requested or supervisord hangs up; `events` is the descriptor its events come from."""
        protocol = Protocol()
        self._answer(READY)
        while not stop.requested:
            ready = select.select([events, self._control.fileno(), stop.fileno()], [], [], PASS_S)[0]
            if events in ready:
                data = os.read(events, 4096)
                if not data:
                    return
                for happened in protocol.feed(data):
                    self._happened(happened, time.monotonic())
                    self._answer(DONE + READY)
            self._turn(time.monotonic())

    def _turn(self, now_s: float) -> None:
        self._hear(now_s)
        if now_s - self._listed_s >= LIST_S:
            self._listed_s = now_s
            self._list(now_s)
            self._files.refresh()
        if self._hub_is_well(now_s):
            for verdict in self._judge.pass_over(self._programs, now_s):
                self._hands.act(verdict)
        for program in self._retries.due(now_s):
            self._hands.start(program)
        states = {name: program.state for name, program in self._programs.items()}
        self._control.beat("running", programs=states)

    # ---- hearing

    def _happened(self, happened: Happened, now_s: float) -> None:
        """Take one event of supervisord."""
        if not happened.name.startswith("PROCESS_STATE_"):
            return
        program, state = happened.payload.get("processname", ""), happened.name.removeprefix("PROCESS_STATE_")
        if program == "watchdog":
            return
        if state == "RUNNING":
            self._hands.tell(ProcessUp(program=program, pid=int(happened.payload.get("pid", "0"))), logging.INFO)
        elif state in DOWN:
            asked = state == "STOPPED" or (state == "EXITED" and happened.payload.get("expected") == "1")
            self._hands.tell(
                ProcessDown(program=program, state=state, reason=_why(happened)),
                logging.INFO if asked else logging.WARNING,
            )
            for verdict in self._judge.ended(program, now_s, asked=asked):
                self._hands.act(verdict)
        self._listed_s = 0.0  # ask supervisord for the whole picture now

    def _hear(self, now_s: float) -> None:
        """Take heartbeats from the hub."""
        for request in self._control.receive():
            beat = request.message
            if isinstance(beat, Heartbeat) and beat.role == "watchdog":
                self._echo_s, self._hub_told = now_s, False
            elif isinstance(beat, Heartbeat):
                self._hearing.heard(beat, now_s)
        for program, beat, heard_s in self._hearing.placed(self._programs):
            self._judge.heard(program, beat, heard_s)
        for beat in self._hearing.strangers(now_s) if self._programs else ():
            self._tell_stranger(beat, now_s)

    def _tell_stranger(self, beat: Heartbeat, now_s: float) -> None:
        """Report a process that says it is one of supervisord's and is not: it holds what the real one needs."""
        for program in (beat.role, f"{beat.role}-{beat.camera}"):
            self._judge.starts.excuse(program, now_s)
        if beat.role in self._programs and self._hearing.first_told(beat):
            said = f"pid {beat.pid} says it is {beat.role}, but supervisord did not start it; type: kill {beat.pid}"
            self._hands.tell(Failed(what=said, program=beat.role), logging.ERROR)

    def _hub_is_well(self, now_s: float) -> bool:
        """Judge the hub by our own echo; without it nobody's heartbeats reach us, so nobody else is judged."""
        silent_s = now_s - self._echo_s
        hub = self._programs.get(HUB)
        if hub is None or hub.state != "RUNNING":
            self._echo_s = now_s
            self._judge.forgive(now_s)
            return False
        if silent_s <= self._settings.hang_report_s:
            return True
        self._judge.forgive(now_s)
        if not self._hub_told:
            self._hub_told = True
            log.error("hub stalled: no echo for %.1f s", silent_s)
        if silent_s > self._settings.hang_kill_s:
            self._echo_s = now_s
            self._hands.act(Verdict("kill", HUB, f"no echo for {silent_s:.0f} s", silent_s))
        return False

    def _list(self, now_s: float) -> None:
        try:
            programs = self._supervisord.programs()
        except SupervisordError as problem:
            if not self._deaf:
                log.warning("supervisord does not answer: %s", problem)
            self._deaf = True
            return
        self._deaf = False
        self._programs = self._hands.programs = {program.name: program for program in programs}
        for program in programs:
            if pause_s := self._retries.saw(program.name, program.state, now_s):
                log.warning(
                    "supervisord gave up program=%s, starting it in %.0f s: %s", program.name, pause_s, program.why
                )


def _why(happened: Happened) -> str:
    """Put what supervisord says about an end into words."""
    payload = happened.payload
    if happened.name.endswith("EXITED"):
        return "ended as asked" if payload.get("expected") == "1" else "ended by itself or was killed"
    if happened.name.endswith("BACKOFF"):
        return f"ended too soon, try {payload.get('tries', '?')}"
    return "gave up; the watchdog starts it again later" if happened.name.endswith("FATAL") else ""
