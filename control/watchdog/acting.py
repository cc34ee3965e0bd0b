"""What the watchdog does about a verdict: it tells everyone, and asks supervisord."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from control.client import ControlClient
from control.messages import Event, Failed, MemoryHigh, ProcessStalled
from control.watchdog.supervisord import Program, Supervisord, SupervisordError
from control.watchdog.verdict import Verdict

log = logging.getLogger(__name__)


class Hands:
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
