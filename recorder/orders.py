"""Commands and events of the hub, turned into what the triggers understand; and the answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from control.client import Request
from control.messages import (
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
from recorder.answers import idle_reply, recording_reply, started_reply, stopped_reply, unfinished_reply, waiting_reply
from recorder.callers import Caller, Callers
from recorder.clip_writer import ClipWriter
from recorder.live import LivePackets
from recorder.notices import Closed, Notice, Opened, Trouble
from recorder.order import Order
from recorder.settings import RecorderSettings
from recorder.triggers import Triggers
from service.clock import now_ns, to_utc_ns

log = logging.getLogger(__name__)

OPEN_WITHIN_S = 5.0
"""A start is answered with the file's name once it exists, or after this long with why it does not."""
CLOSE_WITHIN_S = 15.0
"""A stop is answered when its last file is closed, or after this long with how far that is."""
SETTLED_S = 1.0
"""A stop waits no longer when nothing of its recording is on its way to the disk any more."""


@dataclass
class Orders:
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
    _starts: Callers = field(default_factory=lambda: Callers(OPEN_WITHIN_S))
    _stops: Callers = field(default_factory=lambda: Callers(CLOSE_WITHIN_S))
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

    def _settled(self, order: Order) -> bool:
        """Whether nothing of a recording can come to the disk any more."""
        current = self.writer.current()
        return not (
            self.triggers.on(order) or self.writer.waiting or (current and current[0].start_ns == order.start_ns)
        )

    def _late(self, one: Caller) -> Reply:
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
