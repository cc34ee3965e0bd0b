"""Resumes after a restart: the recording that was interrupted goes on, and clips keep the marks of their events.

The resume file is written when a recording begins, rewritten when a file of it is closed, every ALIVE_S (so that it
tells how long ago the recorder still lived) and when the process is stopped, and removed when the recording ends.
Together with the leftover video it tells the next recorder from which frame on it has to record; frames that are still
in the ring by then are not lost.

A video says in its metadata what it was ordered for when it began. The span, trigger, label and protection that an
event adds later are in the process alone until the library has the closed file. So the newest events are kept in
a file of marks, and a recorder that adopts a clip applies them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from recorder.clips.clip import FOREVER, NS, ClipOrder, Kind
from recorder.clips.writer_events import Closed
from recorder.settings import RecorderSettings
from recorder.triggers import EventTrigger, Triggers
from shmcam.runtime.atomic_files import open_atomic, read_state
from shmcam.runtime.clock import now_ns, to_utc_ns
from shmcam.runtime.procfs import boot_id

log = logging.getLogger(__name__)

AUTO = "auto"
"""The trigger of a session that auto_start began."""
NOTHING = (0, -1)
"""Time and id of the last frame on the disk where there is none."""
RESUME_WITHIN_S = 120.0
"""A recording that was interrupted for longer is not resumed: that would come as a surprise."""
ALIVE_S = 30.0
"""Seconds between two notes that the recorder lives. The frames since the last closed file may not be on the disk."""


class InterruptedRecording(Struct, frozen=True):
    """A session or an event that was on when the recorder ended."""

    boot: str
    """Boot id: the sensor's clock means nothing after another boot."""
    kind: Kind
    trigger: str
    utc_ns: int
    label: str
    protect: bool
    stop_ns: int
    """The time at which it ends by itself at the latest; 1 << 62 for never."""
    last_ns: int
    """The time of the last frame that is certainly on disk, or (before any) of its start."""
    alive_ns: int
    """The time at which the recorder wrote this, by the sensor's clock."""
    last_frame: int = -1
    """The id of the frame at last_ns; -1: unknown."""
    end_ns: int = 0
    """The end of an event if nothing lasts."""
    lasting: dict[str, int] = {}
    """Sources of an event that had begun and not ended, and when they began."""


class ResumeFile:
    """The file that holds the recording to resume, one per camera, in the run folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, state: InterruptedRecording) -> None:
        """Writes it. Raises: OSError.

        Not synced: after a power cut there is nothing to resume (`boot`), and the loop waits for no disk.
        """
        with open_atomic(self._path, replace=True, durable=False) as file:
            file.write(msgspec.json.encode(state))

    def remove(self) -> None:
        """Removes the file: nothing is to be resumed."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:  # a disk that turned read-only: that the recording has ended is no reason to die
            log.warning("a restart would resume what has ended reason=%s", error)

    def read(self, now_ns: int, recorded: tuple[int, int]) -> InterruptedRecording | None:
        """Returns the recording to resume. `recorded`: time and id of the last frame on the disk."""
        try:
            state = msgspec.json.decode(read_state(self._path), type=InterruptedRecording)
        except (OSError, msgspec.DecodeError):
            return None
        last_ns, last_frame = max((state.last_ns, state.last_frame), recorded)
        is_recent = 0 <= now_ns - max(last_ns, state.alive_ns) <= RESUME_WITHIN_S * 1e9
        if state.boot != boot_id() or not is_recent or last_ns >= state.stop_ns:
            return None
        return replace(state, last_ns=last_ns, last_frame=last_frame)


MAX_MARKS = 32
"""Events that are kept, protecting ones first; clips that are not in the library yet are few, and the newest."""


class EventMark(Struct, frozen=True):
    """One event. Times are the sensor's."""

    start_ns: int
    """The first instant to record; no other event has the same."""
    end_ns: int
    """The end of the event, if nothing lasts."""
    latest_ns: int
    """The time at which it is cut off."""
    trigger: str
    utc_ns: int
    label: str
    protect: bool
    lasting: dict[str, int]
    """Sources that had begun and not ended, and when they began."""

    @classmethod
    def of(cls, event: EventTrigger) -> EventMark:
        """Returns the mark of an event as it is now."""
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
        """The end of the frames that it marks."""
        return self.latest_ns if self.lasting else self.end_ns

    def to_event(self, at_ns: int) -> EventTrigger:
        """Returns the rest of the event from `at_ns` on."""
        order = ClipOrder(0, "event", self.trigger, at_ns, self.utc_ns, self.label, self.protect)
        return EventTrigger(order, self.end_ns, self.latest_ns, dict(self.lasting))


class _MarksFile(Struct, frozen=True):
    boot: str
    """Boot id: the sensor's clock means nothing after another boot."""
    marks: list[EventMark]


class EventMarks:
    """The newest events of one camera, kept in a file in the run folder. The loop saves; any thread may read."""

    def __init__(self, path: Path) -> None:
        """Reads the marks of the recorder before us. Marks of another boot serve its leftovers; their file goes."""
        self._path, self._boot = path, boot_id()
        self._marks: tuple[EventMark, ...] = ()
        """Oldest first; replaced as a whole, so that no lock is needed."""
        self._are_of_this_boot = True
        with suppress(OSError, msgspec.DecodeError):
            content = msgspec.json.decode(read_state(path), type=_MarksFile)
            self._marks, self._are_of_this_boot = tuple(content.marks), content.boot == self._boot
        if not self._are_of_this_boot:
            with suppress(OSError):
                path.unlink()

    def save(self, events: Sequence[EventTrigger]) -> None:
        """Saves the events that are on. Not synced: the loop waits for no disk."""
        changed = [mark for mark in map(EventMark.of, events) if mark not in self._marks]
        if not changed:
            return
        marks = {mark.start_ns: mark for mark in self._marks if self._are_of_this_boot}
        marks |= {mark.start_ns: mark for mark in changed}
        newest = sorted(marks.values(), key=lambda mark: (mark.protect, mark.start_ns))[-MAX_MARKS:]
        self._marks, self._are_of_this_boot = tuple(sorted(newest, key=lambda mark: mark.start_ns)), True
        try:
            with open_atomic(self._path, replace=True, durable=False) as file:
                file.write(msgspec.json.encode(_MarksFile(self._boot, list(self._marks))))
        except OSError as error:
            log.warning("a restart would not know what this event marked reason=%s", error)

    def take_ongoing(self, at_ns: int) -> EventTrigger | None:
        """Returns the rest of the newest event at an instant of this boot; its mark ends there, another will begin."""
        newest = self._marks[-1] if self._marks and self._are_of_this_boot else None
        if newest is None or newest.until_ns <= at_ns:
            return None
        self._marks = (*self._marks[:-1], replace(newest, end_ns=at_ns, latest_ns=at_ns, lasting={}))
        return newest.to_event(at_ns)

    def apply_to(self, adopted: Closed) -> Closed:
        """Returns a clip that was adopted by its bytes alone, with the marks of the events that fell into it."""
        order = adopted.order
        for mark in self._find_in(adopted):
            order = order.with_mark(mark.trigger, mark.label, mark.protect)
        return replace(adopted, order=order)

    def _find_in(self, adopted: Closed) -> Sequence[EventMark]:
        first_ns, last_ns = adopted.totals.first_ns, adopted.totals.last_ns
        marks = [mark for mark in self._marks if mark.start_ns <= last_ns and first_ns < mark.until_ns]
        if adopted.order.kind != "event":
            return marks
        # A clip of its own begins in its event; the next one may only have its pre-roll in it.
        return [mark for mark in marks if mark.start_ns <= first_ns][-1:]


PTS_NS = 2_000
"""Times in a video are rounded to 1 µs, twice: a frame that is so much later is certainly not in it."""


class Resume:
    """The part of a recording that outlives the process."""

    def __init__(
        self,
        file: ResumeFile,
        marks: EventMarks,
        triggers: Triggers,
        to_frame_time: Callable[[int], int] = lambda clock_ns: clock_ns,
    ) -> None:
        """`to_frame_time`: as in RecordCommands."""
        self._to_frame_time = to_frame_time
        self._file, self._marks, self._triggers = file, marks, triggers
        self._boot = boot_id()
        self._saved: tuple[object, ...] | None = None
        """The values by which a new state differs from the saved one; None: nothing is saved."""
        self._saved_ns = 0
        """The time of the last save."""
        self._recorded = NOTHING
        """Time and id of the last frame of all files that were closed."""

    def begin(self, own: RecorderSettings, adopted: Sequence[Closed], closed_until: tuple[int, int] = NOTHING) -> int:
        """Resumes an interrupted recording with the frame after its last; starts a session if auto_start is set.

        What auto_start began for one start alone (`shmcam run --mode headless`) is over with that.
        `closed_until`: time and id of the last frame of the newest closed file. Returns: the id of the last frame on
        the disk of what is resumed; -1: nothing is, or it is unknown.
        """
        last_frame = -1
        recorded = max(
            closed_until, *((closed.totals.last_ns, closed.totals.last_frame) for closed in adopted), NOTHING
        )
        state = self._file.read(now_ns(), recorded)
        if state is None or (state.trigger == AUTO and not own.auto_start):
            self._file.remove()
        else:
            self._saved, last_frame = (), state.last_frame
            self._resume(state)
            log.info("recording is resumed after %.2f s trigger=%s", (now_ns() - state.last_ns) / NS, state.trigger)
        if own.auto_start and own.mode != "event" and self._triggers.session is None:
            at_ns = now_ns()
            kind = "rolling" if own.mode == "rolling" else "session"
            trigger = "rolling" if kind == "rolling" else AUTO
            self._triggers.start(self._to_frame_time(at_ns), kind, trigger, utc_ns=to_utc_ns(at_ns))  # type: ignore[arg-type]
        return last_frame

    def save(self, last: Closed | None) -> None:
        """Saves the recording that is on: when it begins, closes a file (`last`: the newest), or every ALIVE_S.

        An event is saved in any case; while a session is on, it is only a mark on that.
        """
        self._marks.save(self._triggers.events)
        order, event = self._find_ongoing()
        if order is None:
            if self._saved is not None:
                self._file.remove()
                self._saved = None
            return
        recorded = self._last_recorded(order, last)
        ends = (event.end_ns, *event.lasting) if event else (self._triggers.session_stop_ns,)
        values = order.utc_ns, order.label, order.protect, recorded, *ends
        if values != self._saved or now_ns() - self._saved_ns >= ALIVE_S * NS:
            self._write(order, event, recorded)
            self._saved, self._saved_ns = values, now_ns()

    def interrupt(self, last: Closed | None) -> None:
        """Saves the recording because the process stops without a command to stop it; `last` has just been closed."""
        order, event = self._find_ongoing()
        if order is not None:
            self._write(order, event, self._last_recorded(order, last))

    def _last_recorded(self, order: ClipOrder, last: Closed | None) -> tuple[int, int]:
        """Returns time and id of the last frame that need not be recorded again."""
        self._recorded = max(self._recorded, (last.totals.last_ns, last.totals.last_frame) if last else NOTHING)
        return max(self._recorded, (order.start_ns - 1, -1))

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
        if (event := self._marks.take_ongoing(at_ns)) is not None:
            self._triggers.resume(event)

    def _find_ongoing(self) -> tuple[ClipOrder | None, EventTrigger | None]:
        """Returns the order that is on, and its event unless it is a session's."""
        order, event = self._triggers.session, self._triggers.event
        return (order, None) if order is not None or event is None else (event.order, event)

    def _write(self, order: ClipOrder, event: EventTrigger | None, recorded: tuple[int, int]) -> None:
        state = InterruptedRecording(
            boot=self._boot,
            kind=order.kind,
            trigger=order.trigger,
            utc_ns=order.utc_ns,
            label=order.label,
            protect=order.protect,
            stop_ns=event.latest_ns if event else self._triggers.session_stop_ns,
            last_ns=recorded[0],
            last_frame=recorded[1],
            alive_ns=now_ns(),
            end_ns=event.end_ns if event else 0,
            lasting=event.lasting if event else {},
        )
        try:
            self._file.write(state)
        except OSError as error:
            log.warning("a restart would not resume this recording reason=%s", error)
