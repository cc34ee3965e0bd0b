"""Commands and events of the hub, turned into what the triggers understand; and the answers."""

from __future__ import annotations

import logging
import time
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
from recorder.answers import data_of, stopped
from recorder.clip_writer import ClipWriter
from recorder.live import LivePackets
from recorder.notices import Closed, Notice, Opened, Trouble
from recorder.settings import RecorderSettings
from recorder.triggers import Triggers
from service.clock import now_ns, to_utc_ns

log = logging.getLogger(__name__)

OPEN_WITHIN_S = 5.0
"""A start is answered with the file's name once it exists, or after this long with why it does not."""
CLOSE_WITHIN_S = 15.0


@dataclass(slots=True)
class _Waiting:
    request: Request
    deadline_s: float


@dataclass
class Orders:
    """Obeys requests; keeps those whose answer needs a file to be opened or closed."""

    camera: str
    settings: RecorderSettings
    triggers: Triggers
    writer: ClipWriter
    live: LivePackets
    notes: list[str] = field(default_factory=list)
    """What the loop wants said with the next answer (a pre-roll that could not be had)."""
    _starts: list[_Waiting] = field(default_factory=list)
    _stops: list[_Waiting] = field(default_factory=list)
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
                self._answer(self._starts, self._started(notice))
            case Closed():
                self.last = notice
                if not self.triggers.active:
                    self._answer(self._stops, stopped(notice))
            case Trouble(reason=reason) if reason:
                self._answer(self._starts, error(f"not recording: {reason}; trying again", "not_recording"))

    def overdue(self) -> None:
        """Answer those who have waited long enough."""
        if not self._starts and not self._stops:
            return
        text = "recording begins with the first frame; none has come yet"
        self._answer(self._starts, Reply(status="recording_waiting", text=text), late_only=True)
        self._answer(
            self._stops, Reply(status="recording_stopped", text="stopped; nothing was written"), late_only=True
        )

    def status(self) -> Reply:
        """What is being recorded."""
        current, trouble = self.writer.current(), self.writer.trouble
        if current is not None:
            order, path, frames, drops = current
            text = f"RECORDING file={path} frames={frames} drops={drops} trigger={order.trigger}"
            data = {"file": str(path), "frames": frames, "drops": drops, "trigger": order.trigger}
            return Reply(status="recording", text=text, data={"recording": True, **data})
        if self.triggers.active:
            reason = trouble or "no frame has come yet"
            return Reply(
                ok=not trouble,
                status="waiting",
                text=f"{'ERROR: ' if trouble else ''}WAITING reason={reason} unwritten={self.writer.unwritten}",
                data={"recording": False, "reason": reason, "unwritten": self.writer.unwritten},
            )
        last = (
            f" last={self.last.path} frames={self.last.totals.frames} drops={self.last.totals.drops}"
            if self.last
            else ""
        )
        return Reply(
            status="idle", text=f"IDLE{last}", data={"recording": False, **(data_of(self.last) if self.last else {})}
        )

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
            self._starts.append(_Waiting(request, time.monotonic() + OPEN_WITHIN_S))
            return
        current = self.writer.current()
        path = str(current[1]) if current else ""
        request.reply(Reply(status="already_recording", text=f"already recording {path}".rstrip(), data={"file": path}))

    def _stop(self, request: Request, message: Record) -> None:
        if not self.triggers.stop(message.at_ns):
            request.reply(error("not recording", "not_recording"))
            return
        self._stops.append(_Waiting(request, time.monotonic() + CLOSE_WITHIN_S))

    def _trigger(self, request: Request, message: Record) -> None:
        at_ns = message.at_ns
        self.triggers.happened(at_ns, "command", utc_ns=to_utc_ns(at_ns), label=message.label, protect=message.protect)
        current = self.writer.current()
        if current is None:
            self._starts.append(_Waiting(request, time.monotonic() + OPEN_WITHIN_S))
            return
        _, path, frames, _ = current
        text = f"triggered; goes into {path}"
        request.reply(Reply(status="recording_triggered", text=text, data={"file": str(path), "frames": frames}))

    def _started(self, notice: Opened) -> Reply:
        notes, self.notes = self.notes, []
        text = "; ".join([f"recording {notice.path} from frame {notice.frame_id}", *notes])
        data = {
            "file": str(notice.path),
            "frame_id": notice.frame_id,
            "captured_ns": notice.captured_ns,
            "notes": notes,
        }
        return Reply(status="recording_started", text=text, data=data)

    def _answer(self, waiting: list[_Waiting], reply: Reply, *, late_only: bool = False) -> None:
        now_s = time.monotonic()
        for one in [one for one in waiting if not late_only or one.deadline_s < now_s]:
            waiting.remove(one)
            one.request.reply(reply)
