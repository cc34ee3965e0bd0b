"""The streamer's line to the hub: what it answers (shortstream, previews, viewers), what it hears, what it asks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from shmcam.config.settings import SettingsError
from shmcam.control.client import ControlClient, Request, acall
from shmcam.control.messages import Command, Event, Preview, Reply, SettingChanged, ShortStream, Viewers, wire_name
from shmcam.runtime.stop import Stop
from streamer.http.context import Context, StreamedCamera
from streamer.previews import Previews
from streamer.shortstream import short_stream

log = logging.getLogger(__name__)

COMMANDS = ("short_stream", "preview", "viewers")
EVENTS = (
    *("night_began", "night_ended", "motion_began", "motion_ended", "mode_changed", "saved", "stack_saved"),
    *("recording_started", "recording_stopped", "clip_closed", "archive_saved", "progressed"),
    *("camera_lost", "camera_found", "process_up", "process_down", "process_stalled", "disk_low", "memory_high"),
    "failed",
)
"""What browsers hear of; settings come without being asked for."""

BEAT_S = 0.5
HUNG_S = 10.0
"""A feed that has not looked at its ring for so long hangs: then we stop beating, and the watchdog ends us."""

SHORT_STREAMS_MAX = 8


class HubLink:
    """Everything between the streamer and the hub."""

    def __init__(self, control: ControlClient, socket_path: Path, stop: Stop) -> None:
        self._control, self._stop = control, stop
        self._socket_path = socket_path
        self._context: Context | None = None
        self._previews: Previews | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, command: Command, timeout_s: float) -> Reply:
        """Send one command and wait for its answer; an unreachable hub is an answer too (ok = False)."""
        return await acall(self._socket_path, command, timeout_s)

    def begin(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        """Start to listen; the loop's thread calls us whenever something has come."""
        self._context = context
        self._previews = Previews(context, self._control.announce)
        loop.add_reader(self._control.fileno(), self._read)
        self.create_task(self._beat(context))

    def idle(self, stop: Stop, state: str, reason: str, seconds: float = math.inf) -> None:
        """Stay up without serving, for so long or until stop is requested, and say why."""
        until_s = time.monotonic() + seconds
        while not stop.requested and time.monotonic() < until_s:
            self._control.beat(state=state, reason=reason)
            for request in self._control.receive():
                request.reply(Reply(ok=False, status="not_running", text=f"ERROR: {reason}"))
            stop.wait(min(BEAT_S, seconds))

    def create_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the rest, held until it ends; the process ends with it if it fails."""
        task = asyncio.get_running_loop().create_task(work, name=getattr(work, "__qualname__", None))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    # ---- inside

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=problem)
            self._stop.fail()  # it would do its work no more, and nobody would know; supervisord brings us back

    def _read(self) -> None:
        for request in self._control.receive():
            self._obey(request)

    def _obey(self, request: Request) -> None:
        context, previews, message = self._context, self._previews, request.message
        if context is None or previews is None:
            return
        if isinstance(message, SettingChanged):
            _apply(context, message)
        elif isinstance(message, Preview):
            previews.set(message)
        elif isinstance(message, Viewers):
            request.reply(viewers(context))
        elif isinstance(message, ShortStream):
            self._short(context, request, message)
        elif isinstance(message, Event):
            context.events.add_from_hub(message)

    def _short(self, context: Context, request: Request, message: ShortStream) -> None:
        name = message.camera or next(iter(context.cameras))
        camera: StreamedCamera | None = context.cameras.get(name)
        if camera is None:
            known = ", ".join(context.cameras)
            request.reply(Reply(ok=False, status="unknown_camera", text=f"ERROR: no camera {name!r}; cameras: {known}"))
        elif sum(task.get_name() == short_stream.__qualname__ for task in self._tasks) >= SHORT_STREAMS_MAX:
            request.reply(Reply(ok=False, status="busy", text=f"ERROR: {SHORT_STREAMS_MAX} short streams run already"))
        else:
            self.create_task(short_stream(context, camera, message, request.reply))

    async def _beat(self, context: Context) -> None:
        while True:
            if all(time.monotonic() - camera.feed.looked_s < HUNG_S for camera in context.cameras.values()):
                fps = max((camera.feed.sight.fps for camera in context.cameras.values()), default=0.0)
                present = context.viewers.entries.values()
                self._control.beat(
                    fps=fps,
                    viewers=len(present),
                    connections=len(context.connections.open),
                    bytes=sum(context.viewers.sum_up().bytes.values()),
                    slowed=context.session_throttle.reason,
                )
            await asyncio.sleep(BEAT_S)


def viewers(context: Context) -> Reply:
    """Who is watching, for `viewers`."""
    rows = [
        {
            "id": one.number,
            "kind": one.kind,
            "camera": one.camera,
            "peer": one.peer,
            "variant": one.variant,
            "seconds": round(time.monotonic() - one.since_s, 1),
            "sent": one.counts.sent,
            "skipped": one.counts.skipped,
            "bytes": one.counts.bytes,
        }
        for one in context.viewers.entries.values()
    ]
    lines = [
        f"{r['id']} {r['kind']} {r['camera']} {r['peer']} {r['variant']} {r['seconds']}s sent={r['sent']} "
        f"skipped={r['skipped']} bytes={r['bytes']}"
        for r in rows
    ]
    return Reply(status="viewers", text="\n".join(lines) or "nobody is watching", data={"viewers": rows})


def _apply(context: Context, change: SettingChanged) -> None:
    path = f"cameras.{change.camera}.{change.key}" if change.camera else change.key
    try:
        context.settings = context.settings.with_value(path, change.new)
    except SettingsError as problem:
        log.warning("%s ignored: %s", wire_name(change), problem)
