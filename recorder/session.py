"""How a recorder's day begins and ends: auto-start, and taking up what a restart interrupted."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from control.messages import SettingChanged
from recorder.marks import Marks
from recorder.memory import ALIVE_S, Interrupted, Memory, boot_id
from recorder.notices import Closed
from recorder.order import FOREVER, NS, Order
from recorder.settings import RecorderSettings
from recorder.triggers import Triggers
from recorder.wanted import Event
from service.clock import now_ns, to_utc_ns
from service.settings import Settings, SettingsError

log = logging.getLogger(__name__)

PTS_NS = 2_000
"""Times in a video are rounded to 1 µs, twice: so much later begins what is certainly not in it."""


class Session:
    """The part of a recording that outlives the process."""

    def __init__(self, settings: Settings, camera: str, memory: Memory, marks: Marks, triggers: Triggers) -> None:
        self.settings = settings
        """With all changes so far."""
        self._camera, self._memory, self._marks, self._triggers = camera, memory, marks, triggers
        self._boot = boot_id()
        self._kept: tuple[object, ...] | None = None
        """What tells the last note from another."""
        self._kept_ns = 0
        """When that was."""
        self._recorded_ns = 0
        """When the last frame of all files that were closed was captured."""

    def begin(self, own: RecorderSettings, found: Sequence[Closed], closed_until_ns: int = 0) -> None:
        """Take up what was interrupted with the frame after its last; start a session if the user wants that."""
        recorded_ns = max(closed_until_ns, *(closed.totals.last_ns for closed in found), 0)
        state = self._memory.recall(now_ns(), recorded_ns)
        if state is None:
            self._memory.forget()
        else:
            self._kept = ()
            self._resume(state)
            log.info("recording is resumed after %.2f s trigger=%s", (now_ns() - state.last_ns) / NS, state.trigger)
        if own.auto_start and own.mode != "event" and self._triggers.session is None:
            at_ns = now_ns()
            kind = "rolling" if own.mode == "rolling" else "session"
            trigger = "rolling" if kind == "rolling" else "auto"
            self._triggers.start(at_ns, kind, trigger, utc_ns=to_utc_ns(at_ns))  # type: ignore[arg-type]

    def keep(self, last: Closed | None) -> None:
        """Note what is on: that it began, each file of it (`last`: the newest that was closed), that we live, its end.

        An event is noted in any case; while a session is on, it is no more than a mark on that.
        """
        self._marks.keep(self._triggers.events)
        order, event = self._present()
        if order is None:
            if self._kept is not None:
                self._memory.forget()
                self._kept = None
            return
        recorded_ns = self._recorded(order, last)
        ends = (event.end_ns, *event.lasting) if event else (self._triggers.session_stop_ns,)
        kept = order.utc_ns, order.label, order.protect, recorded_ns, *ends
        if kept != self._kept or now_ns() - self._kept_ns >= ALIVE_S * NS:
            self._write(order, event, recorded_ns)
            self._kept, self._kept_ns = kept, now_ns()

    def interrupt(self, last: Closed | None) -> None:
        """The process stops although nobody said that the recording should; `last` has been closed for that."""
        order, event = self._present()
        if order is not None:
            self._write(order, event, self._recorded(order, last))

    def changed(self, event: SettingChanged, own: RecorderSettings) -> RecorderSettings:
        """Take a changed setting over. Returns: the table as it is now."""
        if event.camera not in ("", self._camera):
            return own
        try:
            self.settings = self.settings.with_value(event.key, event.new)
            return self.settings.table(RecorderSettings, self._camera)
        except SettingsError as error:
            log.warning("setting not taken over key=%s reason=%s", event.key, error)
            return own

    def _recorded(self, order: Order, last: Closed | None) -> int:
        """When the last frame that needs not be recorded again was captured."""
        self._recorded_ns = max(self._recorded_ns, last.totals.last_ns if last else 0)
        return max(self._recorded_ns, order.start_ns - 1)

    def _resume(self, state: Interrupted) -> None:
        at_ns = self._triggers.resumed_ns = state.last_ns + PTS_NS
        if state.kind == "event":
            order = Order(0, "event", state.trigger, at_ns, state.utc_ns, state.label, state.protect)
            self._triggers.resume(Event(order, state.end_ns, state.stop_ns, dict(state.lasting)))
            return
        left_s = (state.stop_ns - state.last_ns) / NS if state.stop_ns < FOREVER else 0.0
        self._triggers.start(
            at_ns,
            state.kind,
            state.trigger,
            utc_ns=state.utc_ns,
            label=state.label,
            protect=state.protect,
            duration_s=left_s,
        )
        if (event := self._marks.going_on(at_ns)) is not None:
            self._triggers.resume(event)

    def _present(self) -> tuple[Order | None, Event | None]:
        """What is on: a session, or an event."""
        order, event = self._triggers.session, self._triggers.event
        return (order, None) if order is not None or event is None else (event.order, event)

    def _write(self, order: Order, event: Event | None, last_ns: int) -> None:
        state = Interrupted(
            boot=self._boot,
            kind=order.kind,
            trigger=order.trigger,
            utc_ns=order.utc_ns,
            label=order.label,
            protect=order.protect,
            stop_ns=event.latest_ns if event else self._triggers.session_stop_ns,
            last_ns=last_ns,
            alive_ns=now_ns(),
            end_ns=event.end_ns if event else 0,
            lasting=event.lasting if event else {},
        )
        try:
            self._memory.remember(state)
        except OSError as error:
            log.warning("a restart would not resume this recording reason=%s", error)
