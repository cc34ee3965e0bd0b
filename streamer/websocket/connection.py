"""The WebSocket `/ws`: sessions with limits, single pictures on request, statistics, events.

Text messages are JSON objects with a `type`; a binary message is one picture: u64 frame id, u64 wall clock in ns (both
big-endian), JPEG. docs/streaming.md lists the messages in both directions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from shmcam.config.errors import explain_unknown_camera
from streamer.http.context import CONTEXT, Context, client_of
from streamer.http.endless_response import hold_connection
from streamer.monitoring.viewers import Sent
from streamer.pictures.fanout import TooManyViewers
from streamer.websocket.sender import JSON, WebSocketSender, WebSocketWriter, describe_session, statistics_of
from streamer.websocket.session_state import SessionLimit, SessionOptions, WebSocketSession

MESSAGE_BYTES_MAX = 4096
"""The longest honest message is a `create` of 300 bytes."""

HEARTBEAT_S = 20.0
SILENT_S = 10.0
"""A connection without session and subscription ends after this: its heartbeats alone would keep the place for ever."""

PULL_SILENT_S = 60.0
"""A session in mode pull ends its connection after this long without a message; it may be resumed."""

MESSAGES_PER_S = 200
"""The limit of messages from one client, beyond which it is cut off; one request_frame per picture at 60 fps is far
below."""


class ClientError(Exception):
    """A message without a meaning; the text names the right ones."""


class WebSocketHandler:
    """One connection: reads the client's messages and acts on them."""

    def __init__(self, context: Context, socket: web.WebSocketResponse) -> None:
        self._context, self._socket, self._writer = context, socket, WebSocketWriter(socket)
        self._sender: WebSocketSender | None = None
        """The sender of the connection's session; None: no session."""
        self._push_task: asyncio.Task[None] | None = None
        self._event_task: asyncio.Task[None] | None = None
        self._idle_since_s = time.monotonic()
        """The time from which the connection has had no session."""
        self.counts = Sent()
        self._handlers: dict[str, Callable[[JSON], Awaitable[None]]] = {
            "create": self._create,
            "resume": self._resume,
            "configure": self._configure,
            "request_frame": self._request_frame,
            "statistics": self._send_statistics,
            "subscribe": self._subscribe,
            "ping": self._ping,
            "close": self._close,
        }

    async def run(self) -> None:
        """Serves the connection until the client leaves; its session may be resumed for a while."""
        try:
            await self._read_messages()
        finally:
            if self._event_task is not None:
                self._event_task.cancel()
            if self._sender is not None:
                self._context.sessions.disconnect(self._sender.session, time.monotonic())
                self._stop_sending()

    async def _read_messages(self) -> None:
        second, count = 0, 0
        while True:
            try:
                async with asyncio.timeout(self._find_silence_s()):  # aiohttp's own begins anew with each pong
                    message = await self._socket.receive()
            except TimeoutError:
                await self._send_error("silent", "say create, resume or subscribe; in mode pull, request_frame or ping")
                return
            if message.type in {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR}:
                return
            now = int(time.monotonic())
            second, count = (now, 1) if now != second else (second, count + 1)
            if count > MESSAGES_PER_S:
                await self._send_error("too_fast", f"more than {MESSAGES_PER_S} messages a second")
                return
            if message.type != WSMsgType.TEXT:
                await self._send_error("bad_message", "messages are JSON text")
                continue
            await self._handle(message.data)

    def _find_silence_s(self) -> float | None:
        """Returns the longest wait for the next message, seconds; None: without end, as the client need say nothing."""
        if self._sender is None and self._event_task is None:
            return max(0.0, self._idle_since_s + SILENT_S - time.monotonic())
        if self._sender is not None and self._event_task is None and self._sender.session.options.mode == "pull":
            return PULL_SILENT_S
        return None

    async def _handle(self, text: str) -> None:
        try:
            message = msgspec.json.decode(text, type=dict[str, Any])
            handler = self._handlers.get(str(message.pop("type", ""))[:32])
            if handler is None:
                raise ClientError(f"type must be one of {', '.join(self._handlers)}")
            await handler(message)
        except (msgspec.DecodeError, RecursionError, ClientError) as problem:
            await self._send_error("bad_message", str(problem)[:300] or "nested too deeply")
        except (SessionLimit, TooManyViewers) as problem:
            await self._send_error("full", str(problem))

    async def _send_error(self, code: str, reason: str) -> None:
        await self._writer.send_json("error", code=code, reason=reason)

    # ---- one handler for each type of message; `message` is without its type

    async def _create(self, message: JSON) -> None:
        self._require_no_session()
        options = msgspec.convert(message, SessionOptions)
        camera, sessions = self._camera_of(options), self._context.sessions
        session = sessions.create(options, camera, self._context.mjpeg.max_sessions, time.monotonic())
        try:
            await self._start_sending(session)
        except TooManyViewers:
            sessions.close(session)
            raise

    async def _resume(self, message: JSON) -> None:
        self._require_no_session()
        session = self._context.sessions.resume(str(message.get("key", "")), time.monotonic())
        if session is None:
            raise ClientError("no session to resume with this key; create one")
        try:
            await self._start_sending(session)
        except TooManyViewers:
            self._context.sessions.disconnect(session, time.monotonic())
            raise

    async def _configure(self, message: JSON) -> None:
        sender = self._require_sender()
        options = msgspec.convert({**msgspec.to_builtins(sender.session.options), **message}, SessionOptions)
        sender.change(self._camera_of(options), options)
        await self._writer.send_json("session", **describe_session(self._context, sender.session))

    async def _request_frame(self, _message: JSON) -> None:
        sender = self._require_sender()
        if sender.session.options.mode != "pull":
            raise ClientError("request_frame is for mode pull; in mode push pictures come by themselves")
        await sender.answer_request()

    async def _send_statistics(self, _message: JSON) -> None:
        await self._writer.send_json("statistics", **statistics_of(self._context, self._require_sender().session))

    async def _subscribe(self, _message: JSON) -> None:
        if self._event_task is not None:
            raise ClientError("events come already")
        self._event_task = asyncio.create_task(self._forward_events())
        await self._writer.send_json("subscribed")

    async def _ping(self, _message: JSON) -> None:
        await self._writer.send_json("pong")

    async def _close(self, _message: JSON) -> None:
        session = self._require_sender().session
        self._stop_sending()
        self._context.sessions.close(session)
        await self._writer.send_json("closed", **statistics_of(self._context, session))

    # ---- inside

    async def _start_sending(self, session: WebSocketSession) -> None:
        sender = WebSocketSender(self._context, session, self._writer, self.counts)
        sender.join()
        self._sender = sender
        await self._writer.send_json("session", key=session.key, **describe_session(self._context, session))
        self._push_task = asyncio.create_task(sender.push())

    def _stop_sending(self) -> None:
        if self._push_task is not None:
            self._push_task.cancel()
        if self._sender is not None:
            self._sender.leave()
        self._sender = self._push_task = None
        self._idle_since_s = time.monotonic()

    async def _forward_events(self) -> None:
        with self._context.events.subscribe() as queue:
            while True:
                await self._writer.send_json("event", **msgspec.to_builtins(await queue.get()))

    def _require_no_session(self) -> None:
        if self._sender is not None:
            raise ClientError("this connection has a session already; configure it, or close it first")

    def _require_sender(self) -> WebSocketSender:
        if self._sender is None:
            raise ClientError('no session yet; say {"type": "create"}')
        return self._sender

    def _camera_of(self, options: SessionOptions) -> str:
        names = list(self._context.cameras)
        if options.camera and options.camera not in names:
            raise ClientError(explain_unknown_camera(options.camera, names))
        return options.camera or names[0]


async def serve_sessions(request: web.Request) -> web.StreamResponse:
    """Serves one connection until it ends."""
    context = request.app[CONTEXT]
    hold_connection(request)
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES_MAX, compress=False)
    await socket.prepare(request)
    handler = WebSocketHandler(context, socket)
    with context.viewers.track("session", "", client_of(request).address, "websocket", handler.counts):
        await handler.run()
    return socket
