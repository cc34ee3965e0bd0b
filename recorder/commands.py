"""Obeys the hub's commands and events by means of the triggers, and answers: text for people, data for programs.

A request to begin or end a recording is answered when its file is open or closed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from recorder.clips.clip import ClipOrder
from recorder.clips.writer import ClipWriter
from recorder.clips.writer_events import Closed, Filed, Notice, Opened, Trouble
from recorder.live_packets import LivePackets
from recorder.settings import RecorderSettings
from recorder.triggers import Triggers
from shmcam.control.client import Request
from shmcam.control.messages import (
    Event,
    Message,
    MotionBegan,
    MotionEnded,
    NightBegan,
    NightEnded,
    Record,
    Reply,
    Watch,
    error,
)
from shmcam.runtime.clock import now_ns, to_utc_ns

log = logging.getLogger(__name__)


@dataclass(slots=True)
class PendingReply:
    """One request that waits for its answer."""

    request: Request
    order: ClipOrder | None
    """The recording that was started or stopped; None: the next one."""
    deadline_s: float

    def concerns(self, order: ClipOrder) -> bool:
        """Tells whether an order is a file of the requested recording: all its files have the same start."""
        return self.order is None or self.order.start_ns == order.start_ns


class PendingReplies:
    """The requests that wait for the same kind of answer; one thread uses it."""

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s`: the longest time for which a request waits."""
        self._timeout_s = timeout_s
        self._pending: list[PendingReply] = []

    def add(self, request: Request, order: ClipOrder | None) -> None:
        """Adds a request."""
        self._pending.append(PendingReply(request, order, time.monotonic() + self._timeout_s))

    def answer(self, reply: Reply, of: ClipOrder | None = None) -> None:
        """Answers the requests that wait for this recording, or all."""
        for pending in list(self._pending):
            if of is None or pending.concerns(of):
                self._pending.remove(pending)
                pending.request.reply(reply)

    def shorten(self, order: ClipOrder, timeout_s: float) -> None:
        """Lets the requests for this recording wait no longer than `timeout_s` from now."""
        for pending in self._pending:
            if pending.concerns(order):
                pending.deadline_s = min(pending.deadline_s, time.monotonic() + timeout_s)

    def take_overdue(self) -> list[PendingReply]:
        """Removes and returns the requests that have waited long enough."""
        now_s = time.monotonic()
        overdue = [pending for pending in self._pending if pending.deadline_s < now_s]
        self._pending = [pending for pending in self._pending if pending.deadline_s >= now_s]
        return overdue

    @property
    def is_empty(self) -> bool:
        """True while no request waits."""
        return not self._pending

    @property
    def orders(self) -> list[ClipOrder]:
        """The recordings that requests wait for."""
        return [pending.order for pending in self._pending if pending.order is not None]


def start_reply_of(opened: Opened, notes: list[str]) -> Reply:
    """Returns the answer to start and trigger: the file is there."""
    text = "; ".join([f"recording {opened.path} from frame {opened.frame_id}", *notes])
    data = {
        "file": str(opened.path),
        "frame_id": opened.frame_id,
        "captured_ns": opened.captured_ns,
        "notes": notes,
    }
    return Reply(status="recording_started", text=text, data=data)


def stop_reply_of(closed: Closed) -> Reply:
    """Returns the answer to stop."""
    totals = closed.totals
    if not closed.kept:
        text = f"ERROR: no file of the recording was kept: {closed.reason}"
        return Reply(ok=False, status="recording_stopped", text=text, data=data_of(closed))
    text = (
        f"recorded {closed.path} frames={totals.frames} drops={totals.drops} lost={totals.lost}"
        f" duration_s={totals.duration_s:.3f} bytes={totals.bytes}"
    )
    if not closed.intact:
        text = f"ERROR: cut short: {closed.reason}; {text}"
    return Reply(ok=closed.intact, status="recording_stopped", text=text, data=data_of(closed))


def data_of(closed: Closed) -> dict[str, object]:
    """Returns all that is known of a closed clip."""
    totals = closed.totals
    return {
        "file": str(closed.path) if closed.kept else "",
        "frames": totals.frames,
        "first_frame": totals.first_frame,
        "last_frame": totals.last_frame,
        "drops": totals.drops,
        "hardware_drops": totals.hardware_drops,
        "lost": totals.lost,
        "duration_s": totals.duration_s,
        "bytes": totals.bytes,
        "reason": closed.reason,
    }


def unfinished_reply_of(current: tuple[ClipOrder, Path, int, int] | None, queue_length: int, trouble: str) -> Reply:
    """Returns the answer to a stop whose last file was not closed in time, if it ever was opened."""
    if current is not None:
        _, path, frames, _ = current
        text = f"stopped; {path} is still being written"
        return Reply(status="recording_stopped", text=text, data={"file": str(path), "frames": frames})
    if queue_length:
        return Reply(status="recording_stopped", text="stopped; its frames still wait for the disk")
    if trouble:
        return error(f"stopped; nothing was written: {trouble}", "recording_stopped")
    return Reply(status="recording_stopped", text="stopped; nothing was written")


def recording_reply_of(current: tuple[ClipOrder, Path, int, int]) -> Reply:
    """Returns the answer to status while frames go into a file."""
    order, path, frames, drops = current
    text = f"RECORDING file={path} frames={frames} drops={drops} trigger={order.trigger}"
    data = {"file": str(path), "frames": frames, "drops": drops, "trigger": order.trigger}
    return Reply(status="recording", text=text, data={"recording": True, **data})


def waiting_reply_of(trouble: str, unwritten: int) -> Reply:
    """Returns the answer to status while frames should go into a file, but do not."""
    reason = trouble or "no frame has come yet"
    text = f"{'ERROR: ' if trouble else ''}WAITING reason={reason} unwritten={unwritten}"
    data = {"recording": False, "reason": reason, "unwritten": unwritten}
    return Reply(ok=not trouble, status="waiting", text=text, data=data)


def idle_reply_of(last: Closed | None) -> Reply:
    """Returns the answer to status while no frame is to be recorded."""
    if last is None:
        return Reply(status="idle", text="IDLE", data={"recording": False})
    text = f"IDLE last={last.path} frames={last.totals.frames} drops={last.totals.drops}"
    if not last.kept:
        text = f"IDLE last=(not kept: {last.reason})"
    return Reply(status="idle", text=text, data={"recording": False, **data_of(last)})


OPEN_TIMEOUT_S = 5.0
"""A start is answered with the file's name once it exists, or after this time with the reason why it does not."""
CLOSE_TIMEOUT_S = 15.0
"""A stop is answered when its last file is closed, or after this time with how far that is."""
SETTLED_S = 1.0
"""A stop waits no longer than this when nothing of its recording is on its way to the disk any more."""


@dataclass
class RecordCommands:
    """Obeys commands and events; keeps the requests whose answer needs a file to be opened or closed."""

    camera: str
    settings: RecorderSettings
    triggers: Triggers
    writer: ClipWriter
    live: LivePackets
    adopt_leftovers: Callable[[], None] = lambda: None
    """Called when the disk can be written again."""
    save_marks: Callable[[], None] = lambda: None
    """Called before the answer that an event counts."""
    to_frame_time: Callable[[int], int] = lambda clock_ns: clock_ns
    """Turns an instant of the clock into one of the frames' time line."""
    notes: list[str] = field(default_factory=list)
    """Texts for the next answer to a start (a pre-roll that the ring no longer held)."""
    last: Closed | None = None
    """The clip that was closed last."""
    refusal: str = ""
    """The reason why the newest recording could not be written; empty: it could."""
    _starts: PendingReplies = field(default_factory=lambda: PendingReplies(OPEN_TIMEOUT_S))
    _stops: PendingReplies = field(default_factory=lambda: PendingReplies(CLOSE_TIMEOUT_S))

    def obey(self, request: Request) -> None:
        """Acts on one request."""
        message: Message = request.message
        if isinstance(message, Event) and getattr(message, "camera", "") not in ("", self.camera):
            return  # another camera's
        match message:
            case Record(action="start"):
                self._start(request, message)
            case Record(action="stop"):
                self._stop(request, message)
            case Record(action="trigger"):
                self._trigger(request, message)
            case Record():
                request.reply(self.make_status_reply())
            case Watch():
                self.live.watch(message.seconds, key=message.key)
                request.reply(Reply(status="watching", text="OK", data={"seconds": message.seconds}))
            case MotionEnded():
                self.triggers.note_end(message.captured_ns or now_ns(), "motion")
            case MotionBegan() if self._is_source("motion"):
                at_ns = message.captured_ns or now_ns()
                self.triggers.note_begin(at_ns, "motion", utc_ns=to_utc_ns(at_ns))
            case NightEnded():
                return  # the end of the night is no event of its own
            case NightBegan() if self._is_source("night"):
                at_ns = message.captured_ns or now_ns()
                self.triggers.note_event(at_ns, "night", utc_ns=to_utc_ns(at_ns))

    @property
    def are_under_way(self) -> bool:
        """True while a request waits for the writer or for a frame."""
        return not (self._starts.is_empty and self._stops.is_empty)

    def answer(self, notice: Notice) -> None:
        """Answers the requests that waited for this notice."""
        match notice:
            case Opened():
                notes, self.notes, self.refusal = self.notes, [], ""
                self._starts.answer(start_reply_of(notice, notes), of=notice.order)
            case Closed():
                self.last = notice
                if not self.triggers.is_on(notice.order):
                    self._stops.answer(stop_reply_of(notice), of=notice.order)
            case Filed() if self.last is not None and notice.closed.path == self.last.path:
                self.last = replace(self.last, totals=replace(self.last.totals, bytes=notice.bytes))
            case Trouble(reason=""):
                self.adopt_leftovers()
            case Trouble(reason=reason):
                self.refusal = reason
                self._starts.answer(error(f"not recording: {reason}; trying again", "not_recording"))

    def answer_overdue(self) -> None:
        """Answers the requests that have waited long enough."""
        if self._starts.is_empty and self._stops.is_empty:
            return
        for pending in self._starts.take_overdue():
            if pending.order is not None and self._is_settled(pending.order):
                reply = error("nothing was recorded: the recording ended before a frame came", "not_recording")
            else:
                text = "recording begins with the first frame; none has come yet"
                reply = Reply(status="recording_waiting", text=text)
            pending.request.reply(reply)
        for order in self._stops.orders:
            if self._is_settled(order):
                self._stops.shorten(order, SETTLED_S)
        for pending in self._stops.take_overdue():
            pending.request.reply(self._make_overdue_reply(pending))

    def make_status_reply(self) -> Reply:
        """Returns the answer to status."""
        current = self.writer.current
        if current is not None:
            return recording_reply_of(current)
        if self.triggers.is_active:
            return waiting_reply_of(self.writer.trouble, self.writer.unwritten)
        return idle_reply_of(self.last)

    # ---- inside

    def _is_source(self, source: str) -> bool:
        """Tells whether events of this source are recorded."""
        return self.settings.mode in ("event", "rolling") and source in self.settings.events

    def _start(self, request: Request, message: Record) -> None:
        kind = "rolling" if self.settings.mode == "rolling" else "session"
        has_begun = self.triggers.start(
            self.to_frame_time(message.at_ns),
            kind,  # type: ignore[arg-type]
            "rolling" if kind == "rolling" else "manual",
            utc_ns=to_utc_ns(message.at_ns),
            label=message.label,
            protect=message.protect,
            duration_s=message.duration_s,
        )
        if has_begun:
            self._starts.add(request, self.triggers.session)
            return
        current = self.writer.current
        path = str(current[1]) if current else ""
        request.reply(Reply(status="already_recording", text=f"already recording {path}".rstrip(), data={"file": path}))

    def _stop(self, request: Request, message: Record) -> None:
        order = self.triggers.session or self.triggers.recording
        if not self.triggers.stop(self.to_frame_time(message.at_ns)):
            current = self.writer.current
            if current is None:
                request.reply(error("not recording", "not_recording"))
                return
            order, *_ = current  # it has just ended by itself, and is about to be closed
        self._stops.add(request, order)

    def _is_settled(self, order: ClipOrder) -> bool:
        """Tells whether nothing of a recording can come to the disk any more."""
        current = self.writer.current
        is_open = current is not None and current[0].start_ns == order.start_ns
        return not (self.triggers.is_on(order) or self.writer.queue_length or is_open)

    def _make_overdue_reply(self, pending: PendingReply) -> Reply:
        """Returns the answer to a stop whose last file was not closed in time."""
        current = self.writer.current
        if current is not None and not pending.concerns(current[0]):
            current = None
        if current is None and self.last is not None and pending.concerns(self.last.order):
            return stop_reply_of(self.last)
        return unfinished_reply_of(current, self.writer.queue_length, self.refusal or self.writer.trouble)

    def _trigger(self, request: Request, message: Record) -> None:
        at_ns, utc_ns = self.to_frame_time(message.at_ns), to_utc_ns(message.at_ns)
        self.triggers.note_event(at_ns, "command", utc_ns=utc_ns, label=message.label, protect=message.protect)
        self.save_marks()
        current = self.writer.current
        if current is None or not self.triggers.is_on(current[0]):
            self._starts.add(request, None)  # what is open has ended, and is about to be closed
            return
        _, path, frames, _ = current
        text = f"triggered; goes into {path}"
        request.reply(Reply(status="recording_triggered", text=text, data={"file": str(path), "frames": frames}))
