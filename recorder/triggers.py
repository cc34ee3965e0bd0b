"""Decides which frames are recorded, and into which clip. Pure: times come in, orders come out.

All times are the sensor's (`captured_ns`): a command says *when*, so two cameras that hear of it at different moments
still start and stop with the frames of the same instant, and a wall clock that jumps changes nothing.

Two things may want frames: a *session* (somebody said start; continuous, cut into files) and an *event* (something
happened; from `pre_roll_s` before it to `post_roll_s` after it). A session takes precedence: an event during it adds
no file, it only marks the file it falls into.

The two things that want frames, as `Triggers` keeps them: a session, an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from recorder.clips.clip import FOREVER, NEXT_FILE, NS, ClipLimits, ClipOrder, Kind

CLOCK_STEP_NS = 2 * NS
"""So far must the wall clock go from where it was when a file began, for another file to begin: NTP slews by less in
an hour (500 ppm), and a name or a time in the CSV that is off by less misleads nobody."""

CLOCK_SET = "the clock was set"


@dataclass(slots=True)
class Trigger:
    """What sessions and events have in common: an order, of which there may be several files."""

    order: ClipOrder
    _offset_ns: int | None = field(default=None, init=False)
    """Wall clock minus sensor clock when the present file began."""

    def next_file(self, number: int, because: str, offset_ns: int | None) -> None:
        """A frame with this offset begins another file."""
        self.order = replace(self.order, number=number, because=because)
        self._offset_ns = offset_ns

    def clock_stepped(self, offset_ns: int | None) -> bool:
        """Whether a frame with this offset (None: unknown) has another wall clock than its file began with."""
        if self._offset_ns is None:
            self._offset_ns = offset_ns
        return offset_ns is not None and self._offset_ns is not None and _far(offset_ns, self._offset_ns)


def _far(one_ns: int, other_ns: int) -> bool:
    return abs(one_ns - other_ns) >= CLOCK_STEP_NS


@dataclass(slots=True)
class SessionTrigger(Trigger):
    """Somebody said start."""

    stop_ns: int
    file_start_ns: int = -1
    mark: ClipOrder | None = None
    """What frames of the present file are ordered for since an event fell into it."""

    def marked_by(self, event: ClipOrder | None) -> ClipOrder:
        """The order of a frame that this event wants, too; it counts for the rest of the file. None: no event does."""
        if event is not None:
            known = self.mark or self.order
            told = known.marked(event.trigger, event.label, event.protect)
            self.mark = known if told == known else told  # frames that are ordered for the same have the same order
        return self.mark or self.order


@dataclass(slots=True)
class EventTrigger(Trigger):
    """Something happened."""

    end_ns: int
    """When it is over, if nothing lasts."""
    latest_ns: int
    """When it is cut off."""
    lasting: dict[str, int] = field(default_factory=dict)
    """Sources that have begun and not ended, and when they began."""

    def holds(self, start_ns: int, at_ns: int) -> bool:
        """Whether what happens then, and is wanted from `start_ns` on, is part of this: it touches, and is in time."""
        return at_ns < self.latest_ns and (bool(self.lasting) or start_ns <= self.end_ns)

    def prolong(self, end_ns: int) -> None:
        """It is over then at the earliest, but never after it is cut off."""
        self.end_ns = min(max(self.end_ns, end_ns), self.latest_ns)


class Triggers:
    """The state machine; one per camera."""

    def __init__(self, limits: ClipLimits) -> None:
        self.limits = limits
        self._sessions: list[SessionTrigger] = []
        """Oldest first; all but the last were told to stop, but frames from before that may still come."""
        self._events: list[EventTrigger] = []
        """The same."""
        self._silenced: dict[str, int] = {}
        """Lasting sources whose event was cut off, and when they began: they count again once they have ended."""
        self._number = 0
        self.resumed_ns = 0  # what was wanted before, a recorder before us has recorded

    # ---- what happens

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
        """Begin a session with the first frame captured at `at_ns` or later. Returns: False if one runs already."""
        if self._sessions and self._sessions[-1].stop_ns > at_ns:
            return False
        order = ClipOrder(self._next(), kind, trigger, at_ns, utc_ns, label, protect)
        stop_ns = at_ns + int(duration_s * NS) if duration_s else FOREVER
        self._sessions.append(SessionTrigger(order, stop_ns))
        return True

    def stop(self, at_ns: int) -> bool:
        """End session and event: the last frame is the last one captured before `at_ns`. Returns: whether one ran."""
        ran = self.active
        for session in self._sessions:
            session.stop_ns = min(session.stop_ns, at_ns)
        for event in self._events:
            event.end_ns = min(event.end_ns, at_ns)
            self._silenced |= event.lasting
            event.lasting.clear()
        return ran

    def happened(self, at_ns: int, source: str, *, utc_ns: int, label: str = "", protect: bool = False) -> None:
        """Note an event of one instant; events whose spans touch are one."""
        start_ns, end_ns = max(at_ns - self.limits.pre_ns, self.resumed_ns), at_ns + self.limits.post_ns
        event = self.event
        if event is None or not event.holds(start_ns, at_ns):
            order = ClipOrder(self._next(), "event", source, start_ns, utc_ns, label, protect)
            event = EventTrigger(order, end_ns, start_ns + self.limits.event_ns)
            self._events.append(event)
        else:
            order = event.order
            event.order = replace(order, label=order.label or label, protect=order.protect or protect)
        event.prolong(end_ns)

    def resume(self, event: EventTrigger) -> None:
        """Take up an event that a recorder before us did not see the end of."""
        event.order = replace(event.order, number=self._next())
        self._events.append(event)

    def began(self, at_ns: int, source: str, *, utc_ns: int) -> None:
        """Note the beginning of something that lasts (motion).

        Whoever tells the end may have died before it did: that something begins anew means that the last one is over.
        """
        if self._silenced.get(source) == at_ns:
            return  # the one that was cut off, told again
        self._silenced.pop(source, None)
        self.happened(at_ns, source, utc_ns=utc_ns)
        self._events[-1].lasting[source] = at_ns

    def ended(self, at_ns: int, source: str) -> None:
        """Note its end; the post-roll counts from here."""
        self._silenced.pop(source, None)
        for event in self._events:
            if event.lasting.pop(source, None) is not None:
                event.prolong(at_ns + self.limits.post_ns)

    # ---- what follows from it

    @property
    def active(self) -> bool:
        """Whether frames are wanted, now or soon."""
        return bool(self._sessions or self._events)

    @property
    def recording(self) -> ClipOrder | None:
        """The session or event that is on."""
        chosen = [*self._sessions[:1], *self._events[:1]]
        return chosen[0].order if chosen else None

    @property
    def session(self) -> ClipOrder | None:
        """The newest session that is on."""
        return self._sessions[-1].order if self._sessions else None

    def on(self, order: ClipOrder) -> bool:
        """Whether frames of this session or event, in this file or its next, may still come."""
        return order.start_ns in {part.order.start_ns for part in (*self._sessions, *self._events)}

    @property
    def session_stop_ns(self) -> int:
        """When the newest session ends; FOREVER until it is told to."""
        return self._sessions[-1].stop_ns if self._sessions else FOREVER

    @property
    def event(self) -> EventTrigger | None:
        """The newest event that is on."""
        return self._events[-1] if self._events else None

    @property
    def events(self) -> Sequence[EventTrigger]:
        """All that are on, oldest first."""
        return self._events

    @property
    def start_ns(self) -> int:
        """When the earliest wanted frame was captured; only meaningful while `active`."""
        starts = [part.order.start_ns for part in (*self._sessions[:1], *self._events[:1])]
        return min(starts, default=FOREVER)

    def order(self, captured_ns: int, offset_ns: int | None = None) -> ClipOrder | None:
        """Decide about one frame; call it for each frame, in order. None: not wanted.

        `offset_ns`: wall clock minus sensor clock; when that has stepped, another file begins.
        """
        event = self._event_at(captured_ns, offset_ns)
        session = self._session_at(captured_ns, offset_ns)
        return event if session is None else session.marked_by(event)

    def expire(self, now_ns: int) -> None:
        """Forget what ended before `now_ns`: for cameras that deliver no frame by which to notice."""
        self.order(now_ns)

    # ---- inside

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _session_at(self, captured_ns: int, offset_ns: int | None) -> SessionTrigger | None:
        while self._sessions and captured_ns >= self._sessions[0].stop_ns:
            del self._sessions[0]
        if not self._sessions or captured_ns < self._sessions[0].order.start_ns:
            return None
        session = self._sessions[0]
        longest_ns = self.limits.rolling_ns if session.order.kind == "rolling" else self.limits.session_ns
        if session.file_start_ns < 0:
            session.file_start_ns = captured_ns
        over = captured_ns - session.file_start_ns >= longest_ns
        if self._begins_anew(session, offset_ns, over=over):
            session.file_start_ns, session.mark = captured_ns, None
        return session

    def _event_at(self, captured_ns: int, offset_ns: int | None) -> ClipOrder | None:
        while self._events and self._is_over(self._events[0], captured_ns):
            del self._events[0]
        if not self._events or captured_ns < self._events[0].order.start_ns:
            return None
        self._begins_anew(self._events[0], offset_ns, over=False)
        return self._events[0].order

    def _is_over(self, event: EventTrigger, captured_ns: int) -> bool:
        """Whether a frame comes after it; what lasts longer than it may is cut off."""
        if event.lasting and captured_ns >= event.latest_ns:
            self._silenced |= event.lasting
            event.lasting.clear()
            event.end_ns = min(event.end_ns, event.latest_ns)
        return not event.lasting and captured_ns >= event.end_ns

    def _begins_anew(self, wanted: Trigger, offset_ns: int | None, *, over: bool) -> bool:
        """Give it another number if this frame begins another file of it."""
        stepped = wanted.clock_stepped(offset_ns)
        if stepped or over:
            wanted.next_file(self._next(), CLOCK_SET if stepped else NEXT_FILE, offset_ns)
        return stepped or over
