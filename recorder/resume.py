"""How a recorder's day begins and ends: auto-start, and taking up what a restart interrupted.

What a recorder remembers of itself over a restart, so that a recording goes on where it was interrupted.

The file is written when a session begins, rewritten when a file of it is closed, every ALIVE_S (so that it tells how
long ago the recorder still lived) and when the process is asked to stop, and removed when the session ends. Together
with the leftover video it tells the next recorder from which frame on it has to record; what is still in the ring by
then is not lost.

What events made of clips outlives the process: their span, trigger, label and protection.

A video says in its metadata what it was ordered for when it began. What an event made of it later is known to the
process alone until the library has the closed file; so the newest events are noted in a file, and a recorder that
adopts a clip looks there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import msgspec

from recorder.clips.clip import FOREVER, NS, ClipOrder, Kind
from recorder.clips.notices import Closed
from recorder.settings import RecorderSettings
from recorder.triggers import EventTrigger, Triggers
from shmcam.runtime.clock import now_ns, to_utc_ns
from shmcam.runtime.files import whole_file
from shmcam.runtime.procfs import boot_id

log = logging.getLogger(__name__)

RESUME_WITHIN_S = 120.0
"""A recording that was interrupted for longer is not taken up again by itself: nobody would expect it."""
ALIVE_S = 30.0
"""How often a recorder notes that it lives. The frames since the last closed file may not have reached the disk."""


@dataclass(frozen=True, slots=True)
class InterruptedRecording:
    """A session or an event that was on."""

    boot: str
    """The sensor's clock means nothing after another boot."""
    kind: Kind
    trigger: str
    utc_ns: int
    label: str
    protect: bool
    stop_ns: int
    """When it ends by itself at the latest; 1 << 62 for never."""
    last_ns: int
    """When the last frame that is certainly on disk was captured, or (before any) when it began."""
    alive_ns: int
    """When the recorder wrote this, by the sensor's clock."""
    end_ns: int = 0
    """When an event ends if nothing lasts."""
    lasting: dict[str, int] = field(default_factory=dict)
    """What of an event had begun and not ended, and when it began."""


class ResumeFile:
    """The file of one camera, in the run folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def remember(self, state: InterruptedRecording) -> None:
        """Keep it. Raises: OSError.

        Not synced: after a power cut there is nothing to resume (`boot`), and the loop waits for no disk.
        """
        with whole_file(self._path, replace=True, durable=False) as file:
            file.write(json.dumps(asdict(state)).encode())

    def forget(self) -> None:
        """Nothing is to be resumed."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:  # a disk that turned read-only: that the recording has ended is no reason to die
            log.warning("a restart would resume what has ended reason=%s", error)

    def recall(self, now_ns: int, last_recorded_ns: int) -> InterruptedRecording | None:
        """What to resume; `last_recorded_ns` is what leftovers tell (0: nothing)."""
        try:
            state = msgspec.json.decode(self._path.read_bytes(), type=InterruptedRecording)
        except (OSError, msgspec.DecodeError):
            return None
        last_ns = max(state.last_ns, last_recorded_ns)
        recent = 0 <= now_ns - max(last_ns, state.alive_ns) <= RESUME_WITHIN_S * 1e9
        if state.boot != boot_id() or not recent or last_ns >= state.stop_ns:
            return None
        return replace(state, last_ns=last_ns)


KEPT = 32
"""Events that are remembered, protecting ones first; clips that nobody lived to file are few, and the newest."""


@dataclass(frozen=True, slots=True)
class EventMark:
    """One event. Times are the sensor's."""

    start_ns: int
    """First instant that it wants; no other event has the same."""
    end_ns: int
    """When it is over, if nothing lasts."""
    latest_ns: int
    """When it is cut off."""
    trigger: str
    utc_ns: int
    label: str
    protect: bool
    lasting: dict[str, int]
    """What had begun and not ended, and when it began."""

    @classmethod
    def of(cls, event: EventTrigger) -> EventMark:
        """An event as it is now."""
        order = event.order
        return cls(
            start_ns=order.start_ns,
            end_ns=event.end_ns,
            latest_ns=event.latest_ns,
            trigger=order.trigger,
            utc_ns=order.utc_ns,
            label=order.label,
            protect=order.protect,
            lasting=dict(event.lasting),
        )

    @property
    def until_ns(self) -> int:
        """No frame from then on is wanted."""
        return self.latest_ns if self.lasting else self.end_ns

    def event(self, at_ns: int) -> EventTrigger:
        """What is left of it from then on."""
        order = ClipOrder(0, "event", self.trigger, at_ns, self.utc_ns, self.label, self.protect)
        return EventTrigger(order, self.end_ns, self.latest_ns, dict(self.lasting))


@dataclass(frozen=True, slots=True)
class _Noted:
    boot: str
    """The sensor's clock means nothing after another boot."""
    marks: list[EventMark]


class EventMarks:
    """The file of one camera, in the run folder. The loop's thread notes; any may ask."""

    def __init__(self, path: Path) -> None:
        """Look at what a recorder before us has noted; what is of another boot is for its leftovers, and goes."""
        self._path, self._boot = path, boot_id()
        self._marks: tuple[EventMark, ...] = ()
        """Oldest first; replaced as a whole, so that no lock is needed."""
        self._ours = True
        with suppress(OSError, msgspec.DecodeError):
            noted = msgspec.json.decode(path.read_bytes(), type=_Noted)
            self._marks, self._ours = tuple(noted.marks), noted.boot == self._boot
        if not self._ours:
            with suppress(OSError):
                path.unlink()

    def keep(self, events: Sequence[EventTrigger]) -> None:
        """Note the events that are on. Not synced: the loop waits for no disk."""
        news = [mark for mark in map(EventMark.of, events) if mark not in self._marks]
        if not news:
            return
        known = {mark.start_ns: mark for mark in self._marks if self._ours} | {mark.start_ns: mark for mark in news}
        kept = sorted(known.values(), key=lambda mark: (mark.protect, mark.start_ns))[-KEPT:]
        self._marks, self._ours = tuple(sorted(kept, key=lambda mark: mark.start_ns)), True
        try:
            with whole_file(self._path, replace=True, durable=False) as file:
                file.write(json.dumps(asdict(_Noted(self._boot, list(self._marks)))).encode())
        except OSError as error:
            log.warning("a restart would not know what this event marked reason=%s", error)

    def going_on(self, at_ns: int) -> EventTrigger | None:
        """What is left of the newest event at an instant of this boot; where its mark ends, another will begin."""
        newest = self._marks[-1] if self._marks and self._ours else None
        if newest is None or newest.until_ns <= at_ns:
            return None
        self._marks = (*self._marks[:-1], replace(newest, end_ns=at_ns, latest_ns=at_ns, lasting={}))
        return newest.event(at_ns)

    def onto(self, adopted: Closed) -> Closed:
        """A clip that was known by its bytes alone, with what events made of it."""
        order = adopted.order
        for mark in self._in(adopted):
            order = order.marked(mark.trigger, mark.label, mark.protect)
        return replace(adopted, order=order)

    def _in(self, adopted: Closed) -> Sequence[EventMark]:
        first_ns, last_ns = adopted.totals.first_ns, adopted.totals.last_ns
        fallen = [mark for mark in self._marks if mark.start_ns <= last_ns and first_ns < mark.until_ns]
        if adopted.order.kind != "event":
            return fallen
        # A clip of its own begins in its event; the next one may only have its pre-roll in it.
        return [mark for mark in fallen if mark.start_ns <= first_ns][-1:]


PTS_NS = 2_000
"""Times in a video are rounded to 1 µs, twice: so much later begins what is certainly not in it."""


class Resume:
    """The part of a recording that outlives the process."""

    def __init__(self, memory: ResumeFile, marks: EventMarks, triggers: Triggers) -> None:
        self._memory, self._marks, self._triggers = memory, marks, triggers
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

    def _recorded(self, order: ClipOrder, last: Closed | None) -> int:
        """When the last frame that needs not be recorded again was captured."""
        self._recorded_ns = max(self._recorded_ns, last.totals.last_ns if last else 0)
        return max(self._recorded_ns, order.start_ns - 1)

    def _resume(self, state: InterruptedRecording) -> None:
        at_ns = self._triggers.resumed_ns = state.last_ns + PTS_NS
        if state.kind == "event":
            order = ClipOrder(0, "event", state.trigger, at_ns, state.utc_ns, state.label, state.protect)
            self._triggers.resume(EventTrigger(order, state.end_ns, state.stop_ns, dict(state.lasting)))
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

    def _present(self) -> tuple[ClipOrder | None, EventTrigger | None]:
        """What is on: a session, or an event."""
        order, event = self._triggers.session, self._triggers.event
        return (order, None) if order is not None or event is None else (event.order, event)

    def _write(self, order: ClipOrder, event: EventTrigger | None, last_ns: int) -> None:
        state = InterruptedRecording(
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
