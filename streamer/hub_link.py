"""The streamer's connection to the hub: commands from it (shortstream, preview, viewers), events, commands of our own.

Requests are read on the event loop's thread; tasks started here end the process when they fail.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from shmcam.config.errors import explain_unknown_camera
from shmcam.config.settings import apply_change
from shmcam.control.call import acall
from shmcam.control.client import ControlClient, Request
from shmcam.control.messages import Command, Event, Preview, Reply, SettingChanged, ShortStream, Viewers
from shmcam.runtime.stop import Stop
from streamer.http.context import Context, StreamedCamera
from streamer.preview_messages import Previews
from streamer.shortstream import send_short_stream

log = logging.getLogger(__name__)

COMMANDS = ("short_stream", "preview", "viewers")
EVENTS = (
    *("night_began", "night_ended", "motion_began", "motion_ended", "mode_changed", "saved", "stack_saved"),
    *("recording_started", "recording_stopped", "clip_closed", "archive_saved", "deleted", "uploaded", "progressed"),
    *("camera_lost", "camera_found", "process_up", "process_down", "process_stalled", "disk_low", "memory_high"),
    "failed",
)
"""Events passed on to browsers; changed settings come without a subscription."""

BEAT_S = 0.5
HUNG_S = 10.0
"""A feed that has not read its ring for so long hangs: then no heartbeat is sent, and the watchdog kills us."""

SHORT_STREAMS_MAX = 8


class HubLink:
    """The messages between the streamer and the hub."""

    def __init__(self, control: ControlClient, socket_path: Path, stop: Stop) -> None:
        self._control, self._stop = control, stop
        self._socket_path = socket_path
        self._context: Context | None = None
        self._previews: Previews | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, command: Command, timeout_s: float) -> Reply:
        """Sends one command and waits for its reply; an unreachable hub gives a reply too (ok = False)."""
        return await acall(self._socket_path, command, timeout_s)

    def restart_process(self, after_s: float) -> None:
        """Ends the streamer a little later; supervisord starts it again."""
        log.info("restart requested")
        asyncio.get_running_loop().call_later(after_s, self._stop.request)

    def begin(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to read requests, on the loop's thread, and to send heartbeats."""
        self._context = context
        self._previews = Previews(context, self._control.announce)
        loop.add_reader(self._control.fileno(), self._read_requests)
        self.create_task(self._send_heartbeats(context))

    def idle(self, state: str, reason: str, duration_s: float = math.inf) -> None:
        """Waits without serving, for this time or until stop is requested; heartbeats and replies give the reason."""
        until_s = time.monotonic() + duration_s
        while not self._stop.requested and time.monotonic() < until_s:
            self._control.beat(state=state, reason=reason)
            for request in self._control.receive():
                request.reply(Reply(ok=False, status="not_running", text=f"ERROR: {reason}"))
            self._control.wait(min(BEAT_S, duration_s))

    def create_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine as a task, referenced until it ends; if it fails, the process ends."""
        task = asyncio.get_running_loop().create_task(work, name=getattr(work, "__qualname__", None))
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    # ---- inside

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=problem)
            self._stop.fail()  # without it the process would look well; supervisord starts it again

    def _read_requests(self) -> None:
        for request in self._control.receive():
            self._handle(request)

    def _handle(self, request: Request) -> None:
        context, previews, message = self._context, self._previews, request.message
        if context is None or previews is None:
            return
        if isinstance(message, SettingChanged):
            context.settings = apply_change(context.settings, message.key, message.new, message.camera)
        elif isinstance(message, Preview):
            previews.apply(message)
        elif isinstance(message, Viewers):
            request.reply(list_viewers(context))
        elif isinstance(message, ShortStream):
            self._start_short_stream(context, request, message)
        elif isinstance(message, Event):
            context.events.add_from_hub(message)

    def _start_short_stream(self, context: Context, request: Request, message: ShortStream) -> None:
        name = message.camera or next(iter(context.cameras))
        camera: StreamedCamera | None = context.cameras.get(name)
        if camera is None:
            text = f"ERROR: {explain_unknown_camera(name, context.cameras)}"
            request.reply(Reply(ok=False, status="unknown_camera", text=text))
        elif sum(task.get_name() == send_short_stream.__qualname__ for task in self._tasks) >= SHORT_STREAMS_MAX:
            request.reply(Reply(ok=False, status="busy", text=f"ERROR: {SHORT_STREAMS_MAX} short streams run already"))
        else:
            self.create_task(send_short_stream(context, camera, message, request.reply))

    async def _send_heartbeats(self, context: Context) -> None:
        while True:
            if all(time.monotonic() - camera.feed.last_polled_s < HUNG_S for camera in context.cameras.values()):
                fps = max((camera.feed.status.fps for camera in context.cameras.values()), default=0.0)
                self._control.beat(
                    fps=fps,
                    viewers=len(context.viewers.entries),
                    connections=len(context.connections.open),
                    bytes=sum(context.viewers.sum_up().bytes.values()),
                    slowed=context.session_throttle.reason,
                )
            await asyncio.sleep(BEAT_S)


def list_viewers(context: Context) -> Reply:
    """Returns the reply to `viewers`: one row for each connected viewer."""
    rows = [
        {
            "id": entry.number,
            "kind": entry.kind,
            "camera": entry.camera,
            "peer": entry.peer,
            "variant": entry.variant,
            "seconds": round(time.monotonic() - entry.since_s, 1),
            "sent": entry.counts.sent,
            "skipped": entry.counts.skipped,
            "bytes": entry.counts.bytes,
        }
        for entry in context.viewers.entries.values()
    ]
    lines = [
        f"{row['id']} {row['kind']} {row['camera']} {row['peer']} {row['variant']} {row['seconds']}s "
        f"sent={row['sent']} skipped={row['skipped']} bytes={row['bytes']}"
        for row in rows
    ]
    return Reply(status="viewers", text="\n".join(lines) or "nobody is watching", data={"viewers": rows})
