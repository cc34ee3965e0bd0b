"""The WebSocket `/ws`: sessions with limits, single pictures on request, statistics, events.

Text messages are JSON objects with a `type`; a binary message is one picture: u64 frame id, u64 wall clock in ns (both
big-endian), JPEG. What a client may say, and what it gets, is in docs/streaming.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from aiohttp import WSMsgType, web

from streamer.http.connection import HttpConnection
from streamer.http.context import CONTEXT, Context
from streamer.monitoring.viewers import Sent
from streamer.pictures.fanout import TooManyViewers
from streamer.websocket.sender import JSON, WebSocketSender, WebSocketWriter, described, figures
from streamer.websocket.session import SessionLimit, SessionOptions, WebSocketSession

MESSAGE_BYTES_MAX = 4096
"""The longest honest message is an agreement of 300 bytes."""

HEARTBEAT_S = 20.0
MESSAGES_PER_S = 200
"""A client that says more is cut off; one request_frame per picture at 60 fps is far below."""


class ClientError(Exception):
    """The client said something that means nothing; the message says what would."""


class WebSocketHandler:
    """One connection: reads what the client says and does it."""

    def __init__(self, context: Context, socket: web.WebSocketResponse) -> None:
        self._context, self._socket, self._voice = context, socket, WebSocketWriter(socket)
        self._say = self._voice.say
        self._delivery: WebSocketSender | None = None
        self._pushing: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self.counts = Sent()
        self._orders: dict[str, Callable[[JSON], Awaitable[None]]] = {
            "create": self._create,
            "resume": self._resume,
            "configure": self._configure,
            "request_frame": self._request_frame,
            "statistics": self._statistics,
            "subscribe": self._subscribe,
            "ping": self._ping,
            "close": self._close,
        }

    async def run(self) -> None:
        """Talk until the client leaves; its session may be resumed for a while."""
        try:
            await self._listen()
        finally:
            if self._telling is not None:
                self._telling.cancel()
            if self._delivery is not None:
                self._context.sessions.left(self._delivery.session, time.monotonic())
                self._end()

    async def _listen(self) -> None:
        second, count = 0, 0
        async for message in self._socket:
            now = int(time.monotonic())
            second, count = (now, 1) if now != second else (second, count + 1)
            if count > MESSAGES_PER_S:
                await self._say("error", code="too_fast", reason=f"more than {MESSAGES_PER_S} messages a second")
                return
            if message.type != WSMsgType.TEXT:
                await self._say("error", code="bad_message", reason="messages are JSON text")
                continue
            await self._hear(message.data)

    async def _hear(self, text: str) -> None:
        try:
            said = msgspec.json.decode(text, type=dict[str, Any])
            order = self._orders.get(str(said.pop("type", ""))[:32])
            if order is None:
                raise ClientError(f"type must be one of {', '.join(self._orders)}")
            await order(said)
        except (msgspec.DecodeError, RecursionError, ClientError) as problem:
            await self._say("error", code="bad_message", reason=str(problem)[:300] or "nested too deeply")
        except (SessionLimit, TooManyViewers) as problem:
            await self._say("error", code="full", reason=str(problem))

    # ---- what the client may say

    async def _create(self, said: JSON) -> None:
        self._has_none()
        agreement = msgspec.convert(said, SessionOptions)
        camera, sessions = self._camera(agreement), self._context.sessions
        session = sessions.create(agreement, camera, self._context.mjpeg.max_sessions, time.monotonic())
        try:
            await self._begin(session)
        except TooManyViewers:
            sessions.close(session)
            raise

    async def _resume(self, said: JSON) -> None:
        self._has_none()
        session = self._context.sessions.resume(str(said.get("key", "")), time.monotonic())
        if session is None:
            raise ClientError("no session to resume with this key; create one")
        try:
            await self._begin(session)
        except TooManyViewers:
            self._context.sessions.left(session, time.monotonic())
            raise

    async def _configure(self, said: JSON) -> None:
        delivery = self._mine()
        agreement = msgspec.convert({**msgspec.to_builtins(delivery.session.agreement), **said}, SessionOptions)
        delivery.change(self._camera(agreement), agreement)
        await self._say("session", **described(self._context, delivery.session))

    async def _request_frame(self, _said: JSON) -> None:
        delivery = self._mine()
        if delivery.session.agreement.mode != "pull":
            raise ClientError("request_frame is for mode pull; in mode push pictures come by themselves")
        await delivery.answer()

    async def _statistics(self, _said: JSON) -> None:
        await self._say("statistics", **figures(self._context, self._mine().session))

    async def _subscribe(self, _said: JSON) -> None:
        if self._telling is not None:
            raise ClientError("events come already")
        self._telling = asyncio.create_task(self._pass_on_events())
        await self._say("subscribed")

    async def _ping(self, _said: JSON) -> None:
        await self._say("pong")

    async def _close(self, _said: JSON) -> None:
        session = self._mine().session
        self._end()
        self._context.sessions.close(session)
        await self._say("closed", **figures(self._context, session))

    # ---- inside

    async def _begin(self, session: WebSocketSession) -> None:
        delivery = WebSocketSender(self._context, session, self._say, self._voice.send, self.counts)
        delivery.begin()
        self._delivery = delivery
        await self._say("session", key=session.key, **described(self._context, session))
        self._pushing = asyncio.create_task(delivery.push())

    def _end(self) -> None:
        if self._pushing is not None:
            self._pushing.cancel()
        if self._delivery is not None:
            self._delivery.end()
        self._delivery = self._pushing = None

    async def _pass_on_events(self) -> None:
        with self._context.events.subscribe() as queue:
            while True:
                await self._say("event", **msgspec.to_builtins(await queue.get()))

    def _has_none(self) -> None:
        if self._delivery is not None:
            raise ClientError("this connection has a session already; configure it, or close it first")

    def _mine(self) -> WebSocketSender:
        if self._delivery is None:
            raise ClientError('no session yet; say {"type": "create"}')
        return self._delivery

    def _camera(self, agreement: SessionOptions) -> str:
        names = list(self._context.cameras)
        if agreement.camera and agreement.camera not in names:
            raise ClientError(f"no camera {agreement.camera!r}; there is: {', '.join(names)}")
        return agreement.camera or names[0]


async def sessions(request: web.Request) -> web.StreamResponse:
    """Serve one connection until it leaves."""
    context = request.app[CONTEXT]
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES_MAX, compress=False)
    await socket.prepare(request)
    peer = cast(HttpConnection, request.protocol).peer
    talk = WebSocketHandler(context, socket)
    with context.viewers.track("session", "", peer, "websocket", talk.counts):
        await talk.run()
    return socket
