"""Commands and events of the hub, turned into what the triggers understand; and the answers.

Who asked for a recording to begin or end, and is answered when its file is there or closed.

How the recorder answers: text for people, the same as data for programs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from recorder.clips.clip import ClipOrder
from recorder.clips.notices import Closed, Notice, Opened, Trouble
from recorder.clips.writer import ClipWriter
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


@dataclass(slots=True)
class PendingReply:
    """One request that waits for its answer."""

    request: Request
    order: ClipOrder | None
    """What was started or stopped; None: whatever comes next."""
    deadline_s: float

    def means(self, order: ClipOrder) -> bool:
        """Whether this is a file of what was asked for: further files of a recording begin at the same instant."""
        return self.order is None or self.order.start_ns == order.start_ns


class PendingReplies:
    """Those who wait for the same kind of thing; one thread uses it."""

    def __init__(self, within_s: float) -> None:
        """`within_s`: how long one is kept waiting."""
        self._within_s = within_s
        self._waiting: list[PendingReply] = []

    def add(self, request: Request, order: ClipOrder | None) -> None:
        """Let one wait."""
        self._waiting.append(PendingReply(request, order, time.monotonic() + self._within_s))

    def answer(self, reply: Reply, of: ClipOrder | None = None) -> None:
        """Answer those who wait for this recording, or all."""
        for one in list(self._waiting):
            if of is None or one.means(of):
                self._waiting.remove(one)
                one.request.reply(reply)

    def hurry(self, order: ClipOrder, within_s: float) -> None:
        """Those who wait for this recording wait no longer than that."""
        for one in self._waiting:
            if one.means(order):
                one.deadline_s = min(one.deadline_s, time.monotonic() + within_s)

    def late(self) -> list[PendingReply]:
        """Those who have waited long enough; they wait no longer."""
        now_s = time.monotonic()
        late = [one for one in self._waiting if one.deadline_s < now_s]
        self._waiting = [one for one in self._waiting if one.deadline_s >= now_s]
        return late

    def orders(self) -> list[ClipOrder]:
        """What they wait for."""
        return [one.order for one in self._waiting if one.order is not None]


def started_reply(opened: Opened, notes: list[str]) -> Reply:
    """The answer to start and trigger: the file is there."""
    text = "; ".join([f"recording {opened.path} from frame {opened.frame_id}", *notes])
    data = {
        "file": str(opened.path),
        "frame_id": opened.frame_id,
        "captured_ns": opened.captured_ns,
        "notes": notes,
    }
    return Reply(status="recording_started", text=text, data=data)


def stopped_reply(closed: Closed) -> Reply:
    """The answer to stop."""
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
    """All that is known of a closed clip."""
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


def unfinished_reply(current: tuple[ClipOrder, Path, int, int] | None, waiting: int, trouble: str) -> Reply:
    """The answer to a stop whose last file was not closed in time, if it ever was opened."""
    if current is not None:
        _, path, frames, _ = current
        text = f"stopped; {path} is still being written"
        return Reply(status="recording_stopped", text=text, data={"file": str(path), "frames": frames})
    if waiting:
        return Reply(status="recording_stopped", text="stopped; its frames still wait for the disk")
    if trouble:
        return error(f"stopped; nothing was written: {trouble}", "recording_stopped")
    return Reply(status="recording_stopped", text="stopped; nothing was written")


def recording_reply(current: tuple[ClipOrder, Path, int, int]) -> Reply:
    """The answer to status: frames go into a file."""
    order, path, frames, drops = current
    text = f"RECORDING file={path} frames={frames} drops={drops} trigger={order.trigger}"
    data = {"file": str(path), "frames": frames, "drops": drops, "trigger": order.trigger}
    return Reply(status="recording", text=text, data={"recording": True, **data})


def waiting_reply(trouble: str, unwritten: int) -> Reply:
    """The answer to status: frames should go into a file, but do not."""
    reason = trouble or "no frame has come yet"
    text = f"{'ERROR: ' if trouble else ''}WAITING reason={reason} unwritten={unwritten}"
    data = {"recording": False, "reason": reason, "unwritten": unwritten}
    return Reply(ok=not trouble, status="waiting", text=text, data=data)


def idle_reply(last: Closed | None) -> Reply:
    """The answer to status: no frame is wanted."""
    if last is None:
        return Reply(status="idle", text="IDLE", data={"recording": False})
    text = f"IDLE last={last.path} frames={last.totals.frames} drops={last.totals.drops}"
    if not last.kept:
        text = f"IDLE last=(not kept: {last.reason})"
    return Reply(status="idle", text=text, data={"recording": False, **data_of(last)})


log = logging.getLogger(__name__)

OPEN_WITHIN_S = 5.0
"""A start is answered with the file's name once it exists, or after this long with why it does not."""
CLOSE_WITHIN_S = 15.0
"""A stop is answered when its last file is closed, or after this long with how far that is."""
SETTLED_S = 1.0
"""A stop waits no longer when nothing of its recording is on its way to the disk any more."""


@dataclass
class RecordCommands:
    """Obeys requests; keeps those whose answer needs a file to be opened or closed."""

    camera: str
    settings: RecorderSettings
    triggers: Triggers
    writer: ClipWriter
    live: LivePackets
    relieved: Callable[[], None] = lambda: None
    """What is to be done when the disk can be written again."""
    marked: Callable[[], None] = lambda: None
    """What is to be done before anybody is told that an event counts."""
    notes: list[str] = field(default_factory=list)
    """What the loop wants said with the next answer (a pre-roll that could not be had)."""
    _starts: PendingReplies = field(default_factory=lambda: PendingReplies(OPEN_WITHIN_S))
    _stops: PendingReplies = field(default_factory=lambda: PendingReplies(CLOSE_WITHIN_S))
    last: Closed | None = None

    def obey(self, request: Request) -> None:
        """Act on one request."""
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
                request.reply(self.status())
            case Watch():
                self.live.watch(message.seconds)
                request.reply(Reply(status="watching", text="OK", data={"seconds": message.seconds}))
            case MotionEnded():
                self.triggers.ended(message.captured_ns or now_ns(), "motion")
            case MotionBegan() if self._listens("motion"):
                at_ns = message.captured_ns or now_ns()
                self.triggers.began(at_ns, "motion", utc_ns=to_utc_ns(at_ns))
            case NightEnded():
                return  # the coming of day is no event of its own
            case NightBegan() if self._listens("night"):
                at_ns = message.captured_ns or now_ns()
                self.triggers.happened(at_ns, "night", utc_ns=to_utc_ns(at_ns))

    def noticed(self, notice: Notice) -> None:
        """Answer those who waited for this."""
        match notice:
            case Opened():
                notes, self.notes = self.notes, []
                self._starts.answer(started_reply(notice, notes), of=notice.order)
            case Closed():
                self.last = notice
                if not self.triggers.on(notice.order):
                    self._stops.answer(stopped_reply(notice), of=notice.order)
            case Trouble(reason=""):
                self.relieved()
            case Trouble(reason=reason):
                self._starts.answer(error(f"not recording: {reason}; trying again", "not_recording"))

    def overdue(self) -> None:
        """Answer those who have waited long enough."""
        for one in self._starts.late():
            text = "recording begins with the first frame; none has come yet"
            one.request.reply(Reply(status="recording_waiting", text=text))
        for order in self._stops.orders():
            if self._settled(order):
                self._stops.hurry(order, SETTLED_S)
        for one in self._stops.late():
            one.request.reply(self._late(one))

    def status(self) -> Reply:
        """What is being recorded."""
        current = self.writer.current()
        if current is not None:
            return recording_reply(current)
        if self.triggers.active:
            return waiting_reply(self.writer.trouble, self.writer.unwritten)
        return idle_reply(self.last)

    # ---- inside

    def _listens(self, source: str) -> bool:
        return self.settings.mode in ("event", "rolling") and source in self.settings.events

    def _start(self, request: Request, message: Record) -> None:
        at_ns = message.at_ns
        kind = "rolling" if self.settings.mode == "rolling" else "session"
        begun = self.triggers.start(
            at_ns,
            kind,  # type: ignore[arg-type]
            "rolling" if kind == "rolling" else "manual",
            utc_ns=to_utc_ns(at_ns),
            label=message.label,
            protect=message.protect,
            duration_s=message.duration_s,
        )
        if begun:
            self._starts.add(request, self.triggers.session)
            return
        current = self.writer.current()
        path = str(current[1]) if current else ""
        request.reply(Reply(status="already_recording", text=f"already recording {path}".rstrip(), data={"file": path}))

    def _stop(self, request: Request, message: Record) -> None:
        order = self.triggers.session or self.triggers.recording
        if not self.triggers.stop(message.at_ns):
            current = self.writer.current()
            if current is None:
                request.reply(error("not recording", "not_recording"))
                return
            order, *_ = current  # it has just ended by itself, and is about to be closed
        self._stops.add(request, order)

    def _settled(self, order: ClipOrder) -> bool:
        """Whether nothing of a recording can come to the disk any more."""
        current = self.writer.current()
        return not (
            self.triggers.on(order) or self.writer.waiting or (current and current[0].start_ns == order.start_ns)
        )

    def _late(self, one: PendingReply) -> Reply:
        """The answer to a stop whose last file was not closed in time."""
        current = self.writer.current()
        if current is not None and not one.means(current[0]):
            current = None
        if current is None and self.last is not None and one.means(self.last.order):
            return stopped_reply(self.last)
        return unfinished_reply(current, self.writer.waiting, self.writer.trouble)

    def _trigger(self, request: Request, message: Record) -> None:
        at_ns = message.at_ns
        self.triggers.happened(at_ns, "command", utc_ns=to_utc_ns(at_ns), label=message.label, protect=message.protect)
        self.marked()
        current = self.writer.current()
        if current is None or not self.triggers.on(current[0]):
            self._starts.add(request, None)  # what is open has ended, and is about to be closed
            return
        _, path, frames, _ = current
        text = f"triggered; goes into {path}"
        request.reply(Reply(status="recording_triggered", text=text, data={"file": str(path), "frames": frames}))
