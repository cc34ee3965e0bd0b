"""Decides which frames are recorded, and into which clip. Pure: times come in, orders come out.

All times are the sensor's (`captured_ns`): a command says *when*, so two cameras that hear of it at different moments
still start and stop with the frames of the same instant, and a wall clock that jumps changes nothing.

Two things order frames: a *session* (a command said start; continuous, cut into files) and an *event* (something
happened; from `pre_roll_s` before it to `post_roll_s` after it). A session takes precedence: an event during it adds
no file, it only marks the file it falls into.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from recorder.clips.clip import FOREVER, NEXT_FILE, NS, ClipLimits, ClipOrder, Kind

CLOCK_STEP_NS = 2 * NS
"""A wall clock that has moved so far since a file began makes another file begin: NTP slews by less in an hour
(500 ppm), and a name or a time in the CSV that is off by less does not mislead."""

CLOCK_SET = "the clock was set"


@dataclass(slots=True)
class Trigger:
    """The common part of sessions and events: an order, of which there may be several files."""

    order: ClipOrder
    _offset_ns: int | None = field(default=None, init=False)
    """Wall clock minus sensor clock when the present file began."""
    frames: int = field(default=0, init=False)
    """Frames of the present file."""

    def begin_file(self, number: int, because: str, offset_ns: int | None) -> None:
        """Begins another file with a frame of this offset."""
        self.order = replace(self.order, number=number, because=because)
        self._offset_ns, self.frames = offset_ns, 1

    def has_clock_stepped(self, offset_ns: int | None) -> bool:
        """Tells whether a frame with this offset (None: unknown) has another wall clock than its file began with."""
        if self._offset_ns is None:
            self._offset_ns = offset_ns
        return offset_ns is not None and self._offset_ns is not None and _is_step(offset_ns, self._offset_ns)


def _is_step(offset_ns: int, other_ns: int) -> bool:
    return abs(offset_ns - other_ns) >= CLOCK_STEP_NS


@dataclass(slots=True)
class SessionTrigger(Trigger):
    """A recording that a command or auto-start began."""

    stop_ns: int
    file_start_ns: int = -1
    marked_order: ClipOrder | None = None
    """The order of the present file since an event fell into it."""

    def mark_by(self, event: ClipOrder | None) -> ClipOrder:
        """Marks the file, from this frame on, by an event that the frame falls into. Returns: the frame's order."""
        if event is not None:
            order = self.marked_order or self.order
            marked = order.with_mark(event.trigger, event.label, event.protect)
            self.marked_order = order if marked == order else marked  # frames of equal orders have the same order
        return self.marked_order or self.order


@dataclass(slots=True)
class EventTrigger(Trigger):
    """A recording of something that happened."""

    end_ns: int
    """The end of the recording, if nothing lasts."""
    latest_ns: int
    """The time at which it is cut off."""
    lasting: dict[str, int] = field(default_factory=dict)
    """Sources that have begun and not ended, and when they began."""

    def includes(self, start_ns: int, at_ns: int) -> bool:
        """Tells whether something that happens at `at_ns`, with a pre-roll from `start_ns`, is part of this event."""
        return at_ns < self.latest_ns and (bool(self.lasting) or start_ns <= self.end_ns)

    def prolong(self, end_ns: int) -> None:
        """Moves the end to `end_ns` at the earliest, but never beyond the cut."""
        self.end_ns = min(max(self.end_ns, end_ns), self.latest_ns)


class Triggers:
    """The state machine; one per camera."""

    def __init__(self, limits: ClipLimits) -> None:
        self.limits = limits
        self._sessions: list[SessionTrigger] = []
        """Oldest first; all but the last have been stopped, but frames from before that may still come."""
        self._events: list[EventTrigger] = []
        """The same."""
        self._silenced: dict[str, int] = {}
        """Lasting sources whose event was cut off, and when they began: they count again once they have ended."""
        self._number = 0
        self.resumed_ns = 0
        """A recorder before us has recorded the frames before this."""

    # ---- commands and events

    def start(
        self,
        at_ns: int,
        kind: Kind,
        trigger: str,
        *,
        utc_ns: int,
        label: str = "",
        protect: bool = False,
        duration_s: float = 0.0,
    ) -> bool:
        """Begins a session with the first frame captured at `at_ns` or later. Returns: False if one runs already."""
        if self._sessions and self._sessions[-1].stop_ns > at_ns:
            return False
        order = ClipOrder(self._next_number(), kind, trigger, at_ns, utc_ns, label, protect)
        stop_ns = at_ns + int(duration_s * NS) if duration_s else FOREVER
        self._sessions.append(SessionTrigger(order, stop_ns))
        return True

    def stop(self, at_ns: int) -> bool:
        """Ends session and event: the last frame is the last one captured before `at_ns`. Returns: whether one ran."""
        was_active = self.is_active
        for session in self._sessions:
            session.stop_ns = min(session.stop_ns, at_ns)
        for event in self._events:
            event.end_ns = min(event.end_ns, at_ns)
            self._silenced |= event.lasting
            event.lasting.clear()
        return was_active

    def note_event(self, at_ns: int, source: str, *, utc_ns: int, label: str = "", protect: bool = False) -> None:
        """Notes an event of one instant; events whose spans touch are one."""
        start_ns, end_ns = max(at_ns - self.limits.pre_ns, self.resumed_ns), at_ns + self.limits.post_ns
        event = self.event
        if event is None or not event.includes(start_ns, at_ns):
            order = ClipOrder(self._next_number(), "event", source, start_ns, utc_ns, label, protect)
            event = EventTrigger(order, end_ns, start_ns + self.limits.event_ns)
            self._events.append(event)
        else:
            order = event.order
            event.order = replace(order, label=order.label or label, protect=order.protect or protect)
        event.prolong(end_ns)

    def resume(self, event: EventTrigger) -> None:
        """Goes on with an event that had not ended when a recorder before us did."""
        event.order = replace(event.order, number=self._next_number())
        self._events.append(event)

    def note_begin(self, at_ns: int, source: str, *, utc_ns: int) -> None:
        """Notes the beginning of something that lasts (motion).

        Its end may never be announced, because the announcing process has died: a new beginning ends the last one.
        """
        if self._silenced.get(source) == at_ns:
            return  # the one that was cut off, announced again
        self._silenced.pop(source, None)
        self.note_event(at_ns, source, utc_ns=utc_ns)
        self._events[-1].lasting[source] = at_ns

    def note_end(self, at_ns: int, source: str) -> None:
        """Notes its end; the post-roll counts from here."""
        self._silenced.pop(source, None)
        for event in self._events:
            if event.lasting.pop(source, None) is not None:
                event.prolong(at_ns + self.limits.post_ns)

    # ---- frames

    @property
    def is_active(self) -> bool:
        """True if frames are to be recorded, now or soon."""
        return bool(self._sessions or self._events)

    @property
    def recording(self) -> ClipOrder | None:
        """The order of the session or event that is on."""
        triggers = [*self._sessions[:1], *self._events[:1]]
        return triggers[0].order if triggers else None

    @property
    def session(self) -> ClipOrder | None:
        """The order of the newest session that is on."""
        return self._sessions[-1].order if self._sessions else None

    def is_on(self, order: ClipOrder) -> bool:
        """Tells whether frames of this session or event, in this file or its next, may still come."""
        return order.start_ns in {trigger.order.start_ns for trigger in (*self._sessions, *self._events)}

    @property
    def session_stop_ns(self) -> int:
        """The end of the newest session; FOREVER until it is stopped."""
        return self._sessions[-1].stop_ns if self._sessions else FOREVER

    @property
    def event(self) -> EventTrigger | None:
        """The newest event that is on."""
        return self._events[-1] if self._events else None

    @property
    def events(self) -> Sequence[EventTrigger]:
        """All events that are on, oldest first."""
        return self._events

    @property
    def start_ns(self) -> int:
        """The first instant to record; only meaningful while `is_active`."""
        starts_ns = [trigger.order.start_ns for trigger in (*self._sessions[:1], *self._events[:1])]
        return min(starts_ns, default=FOREVER)

    def decide(self, captured_ns: int, offset_ns: int | None = None) -> ClipOrder | None:
        """Decides about one frame; call it for each frame, in order. Returns: its order; None: do not record it.

        `offset_ns`: wall clock minus sensor clock; when that has stepped, another file begins.
        """
        event = self._find_event(captured_ns, offset_ns)
        session = self._find_session(captured_ns, offset_ns)
        return event if session is None else session.mark_by(event)

    def expire(self, now_ns: int) -> None:
        """Drops what ended before `now_ns`, where no frame comes by which to notice."""
        self.decide(now_ns)

    # ---- inside

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _find_session(self, captured_ns: int, offset_ns: int | None) -> SessionTrigger | None:
        while self._sessions and captured_ns >= self._sessions[0].stop_ns:
            del self._sessions[0]
        if not self._sessions or captured_ns < self._sessions[0].order.start_ns:
            return None
        session = self._sessions[0]
        longest_ns = self.limits.rolling_ns if session.order.kind == "rolling" else self.limits.session_ns
        if session.file_start_ns < 0:
            session.file_start_ns = captured_ns
        is_full = captured_ns - session.file_start_ns >= longest_ns
        if self._begin_file(session, offset_ns, is_full=is_full):
            session.file_start_ns, session.marked_order = captured_ns, None
        return session

    def _find_event(self, captured_ns: int, offset_ns: int | None) -> ClipOrder | None:
        while self._events and self._is_over(self._events[0], captured_ns):
            del self._events[0]
        if not self._events or captured_ns < self._events[0].order.start_ns:
            return None
        self._begin_file(self._events[0], offset_ns, is_full=False)
        return self._events[0].order

    def _is_over(self, event: EventTrigger, captured_ns: int) -> bool:
        """Tells whether a frame comes after the event; an event that lasts too long is cut off."""
        if event.lasting and captured_ns >= event.latest_ns:
            self._silenced |= event.lasting
            event.lasting.clear()
            event.end_ns = min(event.end_ns, event.latest_ns)
        return not event.lasting and captured_ns >= event.end_ns

    def _begin_file(self, trigger: Trigger, offset_ns: int | None, *, is_full: bool) -> bool:
        """Gives an order another number if this frame, which is counted, begins another file. Returns: whether so."""
        has_stepped = trigger.has_clock_stepped(offset_ns)
        trigger.frames += 1
        is_full = is_full or trigger.frames > self.limits.frames
        if has_stepped or is_full:
            trigger.begin_file(self._next_number(), CLOCK_SET if has_stepped else NEXT_FILE, offset_ns)
        return has_stepped or is_full
