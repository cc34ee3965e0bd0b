"""The watchdog's loop: takes events of supervisord and heartbeats of the hub, and carries out what is decided of them.

It decides nothing itself: `shmcam.watchdog.hang_detector` and `shmcam.watchdog.restart_policy` do.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable

from shmcam.config.optional_program import find_missing
from shmcam.config.settings import Settings, SettingsError, apply_change
from shmcam.control.client import ControlClient
from shmcam.control.messages import (
    JSON,
    Event,
    Failed,
    Heartbeat,
    MemoryHigh,
    ProcessDown,
    ProcessStalled,
    ProcessUp,
    SettingChanged,
)
from shmcam.control.settings import ControlSettings
from shmcam.runtime.procfs import read_service_bytes
from shmcam.runtime.stop import Stop
from shmcam.runtime.supervisord import Program, Supervisord, SupervisordError
from shmcam.watchdog.camera_changes import MUST_KNOW, CameraGroups
from shmcam.watchdog.hang_detector import ALIVE, WATCHDOG, Action, HangDetector
from shmcam.watchdog.liveness import read_signs
from shmcam.watchdog.restart_policy import RestartPolicy
from shmcam.watchdog.supervisord_events import DONE, READY, EventParser, SupervisordEvent
from shmcam.watchdog.supervisord_program_files import ProgramFiles
from shmcam.watchdog.supervisord_socket import SocketKeeper

log = logging.getLogger(__name__)

CHECK_S = 0.5
LIST_S = 3.0
"""The period of asking supervisord for the state of every program; its events ask at once."""

MEMORY_S = 30.0
"""The period of adding up what the service takes: 20 to 30 ms of CPU."""

FIRST_MEMORY_S = 5.0

DOWN = ("EXITED", "STOPPED", "BACKOFF", "FATAL")


class Watchdog:
    """The watchdog of one supervisord and one hub."""

    def __init__(
        self,
        *,
        control: ControlClient,
        supervisord: Supervisord,
        settings: Settings,
        detector: HangDetector,
        restarts: RestartPolicy,
        files: ProgramFiles,
        groups: CameraGroups,
        socket: SocketKeeper,
        answer: Callable[[bytes], None],
    ) -> None:
        """`answer` sends bytes to supervisord, in reply to its events."""
        self._control, self._supervisord = control, supervisord
        self._detector, self._restarts, self._files = detector, restarts, files
        self._groups = groups
        self._socket = socket
        self._answer = answer
        self._settings = settings
        self._programs: dict[str, Program] = {}
        """As supervisord listed them last."""
        self._listed_s = self._checked_s = 0.0
        self._memory_due_s = time.monotonic() + FIRST_MEMORY_S
        self._service_bytes = 0
        self._is_unanswered = False
        """supervisord did not answer the last time."""
        self._camera_trouble = ""
        """The reason why the last change of cameras is not dealt with; logged once."""

    def run(self, events: int, stop: Stop) -> None:
        """Works until stop is requested or supervisord hangs up; `events` is the descriptor its events come from."""
        parser = EventParser()
        self._answer(READY)
        while not stop.requested:
            wait_s = max(0.0, self._checked_s + CHECK_S - time.monotonic())
            ready = select.select([events, stop.fileno()], [], [], wait_s)[0]
            if events in ready:
                data = os.read(events, 4096)
                if not data:
                    return
                for event in parser.feed(data):
                    self._take_event(event, time.monotonic())
                    self._answer(DONE + READY)
            now_s = time.monotonic()
            if events in ready or now_s - self._checked_s >= CHECK_S:
                self._checked_s = now_s
                self._hear(now_s)  # several heartbeats a second wait until now: no silence is measured in between
                self._check(now_s)

    def _hear(self, now_s: float) -> None:
        """Takes what the hub passed on since the last check."""
        for request in self._control.receive():
            message = request.message
            if isinstance(message, Heartbeat):
                self._detector.hear(message, now_s)
            elif isinstance(message, SettingChanged):
                self._settings = apply_change(self._settings, message.key, message.new, message.camera)
                self._detector.settings = self._settings.table(ControlSettings)

    def _check(self, now_s: float) -> None:
        """Looks at every program, in /proc and in its rings."""
        self._socket.check()
        if now_s - self._listed_s >= LIST_S:
            self._listed_s = now_s
            self._list_programs(now_s)
            self._files.refresh()
        signs = read_signs(self._programs.values(), self._settings)
        for action in self._detector.check(self._programs, now_s, signs):
            self._carry_out(action)
        for name in self._restarts.take_due(now_s):
            self._start(name)
        if now_s >= self._memory_due_s:
            self._memory_due_s = now_s + MEMORY_S
            self._service_bytes = read_service_bytes()
        states: JSON = {name: program.state for name, program in self._programs.items()}
        self._control.beat("running", programs=states, service_bytes=self._service_bytes)

    # ---- supervisord

    def _take_event(self, event: SupervisordEvent, now_s: float) -> None:
        if not event.name.startswith("PROCESS_STATE_"):
            return
        name, state = event.payload.get("processname", ""), event.name.removeprefix("PROCESS_STATE_")
        if name == WATCHDOG:
            return
        if state == "RUNNING":
            self._tell(ProcessUp(program=name, pid=int(event.payload.get("pid", "0"))), logging.INFO)
        elif state in DOWN:
            expected = state == "STOPPED" or (state == "EXITED" and event.payload.get("expected") == "1")
            self._tell(
                ProcessDown(program=name, state=state, reason=self._find_missing(name) or reason_of(event)),
                logging.INFO if expected else logging.WARNING,
            )
            for action in self._detector.end(name, now_s, expected=expected):
                self._carry_out(action)
        self._listed_s = 0.0  # one event tells of one program; the others may have changed, too

    def _find_missing(self, name: str) -> str:
        """Returns what an optional program that ended lacks, and the line to type; empty: nothing."""
        try:
            need = find_missing(Settings.load(self._settings.path), name)
        except SettingsError:
            return ""  # its own words are in its log
        return str(need) if need else ""

    def _list_programs(self, now_s: float) -> None:
        try:
            programs = self._supervisord.programs()
        except SupervisordError as problem:
            if not self._is_unanswered:
                log.warning("supervisord does not answer: %s", problem)
            self._is_unanswered = True
            return
        self._is_unanswered = False
        self._programs = {program.name: program for program in programs}
        for program in programs:
            if pause_s := self._restarts.note_state(program.name, program.state, now_s):
                log.warning(
                    "supervisord gave up program=%s, starting it in %.0f s: %s",
                    program.name,
                    pause_s,
                    program.spawn_error,
                )
        self._follow_cameras(programs)

    def _follow_cameras(self, programs: list[Program]) -> None:
        """Restarts the programs for all cameras after `supervisorctl update` added or removed one."""
        trouble = ""
        try:
            if self._groups.have_changed(programs):
                self._settings = Settings.load(self._settings.path)  # before one ends: it would not come back
                for name in MUST_KNOW:
                    program = self._programs.get(name)
                    if program and program.state in ALIVE:  # one that starts has read the list already
                        log.info("restarting program=%s, as a camera was added or removed", name)
                        self._ask(self._supervisord.terminate, name)
                self._groups.note(programs)
            self._groups.write()
        except SettingsError as problem:
            trouble = (
                f"cameras were added or removed; hub, exporter and streamer wait for a right config.toml: {problem}"
            )
        except OSError as problem:
            trouble = f"which cameras are known is kept in memory only, its note cannot be written: {problem.strerror}"
        if trouble and trouble != self._camera_trouble:
            log.error("%s", trouble)
        self._camera_trouble = trouble

    # ---- actions

    def _carry_out(self, action: Action) -> None:
        name, reason = action.program, action.reason
        match action.kind:
            case "grace":
                log.warning("waiting one more period: %s", reason)
            case "hub_stalled":  # nobody would hear an event
                log.error("hub stalled: %s", reason)
            case "stalled":
                self._tell(ProcessStalled(program=name, silent_s=action.silent_s, reason=reason), logging.ERROR)
            case "storm" | "stranger":
                self._tell(Failed(what=reason, program=name), logging.ERROR)
            case "too_big":
                event = MemoryHigh(program=name, action="restart", used=action.used_mb, limit=action.limit_mb)
                self._tell(event, logging.ERROR)
                self._ask(self._supervisord.terminate, name)  # in one step: stopped and not started, it stays away
            case "kill":
                self._tell(Failed(what=f"{name} killed: {reason}", program=name), logging.ERROR)
                self._ask(self._supervisord.kill, name)

    def _start(self, name: str) -> None:
        log.info("starting program=%s", name)
        self._ask(self._supervisord.start, name)

    def _tell(self, event: Event, level: int) -> None:
        """Logs and announces an event."""
        log.log(level, "%s", event)
        self._control.announce(event)

    def _ask(self, call: Callable[[str], None], name: str) -> None:
        program = self._programs.get(name)
        try:
            call(program.full_name if program else name)
        except SupervisordError as problem:
            log.error("program=%s: %s", name, problem)


def reason_of(event: SupervisordEvent) -> str:
    """The words for what supervisord says about the end of a process."""
    payload = event.payload
    if event.name.endswith("EXITED"):
        return "ended as asked" if payload.get("expected") == "1" else "ended by itself or was killed"
    if event.name.endswith("BACKOFF"):
        return f"ended too soon, try {payload.get('tries', '?')}"
    return "gave up; the watchdog starts it again later" if event.name.endswith("FATAL") else ""
