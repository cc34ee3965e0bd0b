"""The WebSocket `/ws`: sessions with limits, single pictures on request, statistics, events.

Text messages are JSON objects with a `type`; a binary message is one picture: u64 frame id, u64 wall clock in ns (both
big-endian), JPEG. What a client may say, and what it gets, is in docs/streaming.md.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import msgspec
from aiohttp import WSMsgType, web

from streamer.connection import Connection
from streamer.context import CONTEXT, Context
from streamer.fanout import TooMany
from streamer.ledger import Tally
from streamer.picture import Picture
from streamer.session import Agreement, Full, Session
from streamer.variant import Variant
from streamer.wording import JSON, binary, described, figures, spelled

MESSAGE_BYTES_MAX = 4096
"""The longest honest message is an agreement of 300 bytes."""

HEARTBEAT_S = 20.0
MESSAGES_PER_S = 200
"""A client that says more is cut off; one request_frame per picture at 60 fps is far below."""


class Wrong(Exception):
    """The client said something that means nothing; the message says what would."""


class Talk:
    """One connection: reads what the client says, sends what its session may have."""

    def __init__(self, context: Context, socket: web.WebSocketResponse, peer: str) -> None:
        self._context, self._socket, self._peer = context, socket, peer
        self._session: Session | None = None
        self._variant: Variant | None = None
        self._came = asyncio.Event()
        self._told = ""
        """The reason for being slow that the client knows."""
        self.tally = Tally()
        self._tasks: list[asyncio.Task[None]] = []
        self._orders = {
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
        """Talk until the client leaves."""
        try:
            await self._listen()
        finally:
            for task in self._tasks:
                task.cancel()
            self._unjoin()
            if self._session is not None:
                self._context.sessions.left(self._session, time.monotonic())

    def offer(self, picture: Picture) -> None:
        """Take the newest picture; the sending task does the rest."""
        if self._session is not None:
            self._session.offer(picture)
            self._came.set()

    # ---- what the client says

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
                raise Wrong(f"type must be one of {', '.join(self._orders)}")
            await order(said)
        except (msgspec.DecodeError, RecursionError, Wrong) as problem:
            await self._say("error", code="bad_message", reason=str(problem)[:300] or "nested too deeply")
        except (Full, TooMany) as problem:
            await self._say("error", code="full", reason=str(problem))

    async def _create(self, said: JSON) -> None:
        if self._session is not None:
            raise Wrong("this connection has a session already; configure it, or close it first")
        agreement = msgspec.convert(said, Agreement)
        camera = self._camera(agreement)
        session = self._context.sessions.create(agreement, camera, self._context.mjpeg.max_sessions, time.monotonic())
        await self._begin(session)

    async def _resume(self, said: JSON) -> None:
        if self._session is not None:
            raise Wrong("this connection has a session already")
        session = self._context.sessions.resume(str(said.get("key", "")), time.monotonic())
        if session is None:
            raise Wrong("no session to resume with this key; create one")
        await self._begin(session)

    async def _configure(self, said: JSON) -> None:
        session = self._mine()
        now = msgspec.to_builtins(session.agreement)
        agreement = msgspec.convert({**now, **said}, Agreement)
        camera = self._camera(agreement)
        self._unjoin()
        session.agreement, session.camera = agreement, camera
        self._join(session)
        await self._say("session", **described(self._context, session))

    async def _request_frame(self, _said: JSON) -> None:
        session = self._mine()
        if session.agreement.mode != "pull":
            raise Wrong("request_frame is for mode pull; in mode push pictures come by themselves")
        taken = session.take(time.monotonic(), self._context.throttle.share)
        if isinstance(taken, Picture):
            await self._send(session, taken)
            return
        session.statistics.no_frame += 1
        reason = self._context.throttle.reason if taken == "busy" else ""
        await self._say("no_frame", code=taken, reason=reason, retry_s=round(session.due_s(time.monotonic()), 3))

    async def _statistics(self, _said: JSON) -> None:
        await self._say("statistics", **figures(self._context, self._mine()))

    async def _subscribe(self, _said: JSON) -> None:
        if len(self._tasks) > 1:
            raise Wrong("events come already")
        self._tasks.append(asyncio.create_task(self._pass_on_events()))
        await self._say("subscribed")

    async def _ping(self, _said: JSON) -> None:
        await self._say("pong")

    async def _close(self, _said: JSON) -> None:
        session = self._mine()
        await self._say("closed", **figures(self._context, session))
        self._unjoin()
        self._context.sessions.close(session)
        self._session = None

    # ---- what the client gets

    async def _begin(self, session: Session) -> None:
        self._join(session)
        self._session = session
        await self._say("session", key=session.key, **described(self._context, session))
        self._tasks.insert(0, asyncio.create_task(self._push()))

    async def _push(self) -> None:
        """Send pictures as they come and limits allow; tell when the machine is busy, and when it is over."""
        while not self._socket.closed:
            await self._came.wait()
            self._came.clear()
            await self._tell_throttle()
            session = self._session
            if session is None or session.agreement.mode != "push":
                continue
            taken = session.take(time.monotonic(), self._context.throttle.share)
            if isinstance(taken, Picture):
                await self._send(session, taken)
            elif taken != "nothing_new" and (due_s := session.due_s(time.monotonic())):
                await asyncio.sleep(due_s)
                self._came.set()

    async def _send(self, session: Session, picture: Picture) -> None:
        self.tally.sent += 1
        self.tally.bytes += len(picture.jpeg)
        if session.agreement.format == "binary":
            await self._socket.send_bytes(binary(picture))
        else:
            await self._say("frame", **spelled(picture))

    async def _tell_throttle(self) -> None:
        throttle = self._context.throttle
        if throttle.reason != self._told:
            self._told = throttle.reason
            kind = "throttled" if throttle.reason else "unthrottled"
            await self._say(kind, share=throttle.share, reason=throttle.reason)

    async def _pass_on_events(self) -> None:
        with self._context.events.listening() as queue:
            while not self._socket.closed:
                told = await queue.get()
                await self._say("event", **msgspec.to_builtins(told))

    async def _say(self, kind: str, **values: object) -> None:
        if not self._socket.closed:
            await self._socket.send_str(msgspec.json.encode({"type": kind, **values}).decode())

    # ---- inside

    def _mine(self) -> Session:
        if self._session is None:
            raise Wrong('no session yet; say {"type": "create"}')
        return self._session

    def _camera(self, agreement: Agreement) -> str:
        names = list(self._context.cameras)
        if agreement.camera and agreement.camera not in names:
            raise Wrong(f"no camera {agreement.camera!r}; there is: {', '.join(names)}")
        return agreement.camera or names[0]

    def _join(self, session: Session) -> None:
        variant = session.agreement.variant(self._context.mjpeg.fps)
        self._context.cameras[session.camera].fanout.join(variant, self)
        self._variant = variant

    def _unjoin(self) -> None:
        if self._variant is not None and self._session is not None:
            self._context.cameras[self._session.camera].fanout.leave(self._variant, self)
            self._variant = None


async def sessions(request: web.Request) -> web.StreamResponse:
    """Serve one connection until it leaves."""
    context = request.app[CONTEXT]
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES_MAX, compress=False)
    await socket.prepare(request)
    peer = cast(Connection, request.protocol).peer
    talk = Talk(context, socket, peer)
    with context.ledger.watching("session", "", peer, "websocket", talk.tally):
        await talk.run()
    return socket
