"""How the pictures of one WebSocket session reach its client: its place in the fan-out, its pace, its limits.

What a WebSocket session is told about itself and about its pictures.
"""

from __future__ import annotations

import asyncio
import struct
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web

from streamer.http.context import Context
from streamer.monitoring.viewers import Sent
from streamer.pictures.fanout import TooManyViewers
from streamer.pictures.jpeg_picture import JpegPicture
from streamer.pictures.variant import Variant
from streamer.websocket.session import PRESETS, SessionOptions, WebSocketSession

JSON = dict[str, Any]


class WebSocketWriter:
    """Speaks to one client. One that has left hears nothing; whoever listens to it finds out."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def say(self, kind: str, **values: object) -> None:
        """Send a text message: a JSON object of this type."""
        with suppress(ConnectionError):
            await self._socket.send_str(msgspec.json.encode({"type": kind, **values}).decode())

    async def send(self, data: bytes) -> None:
        """Send a binary message."""
        with suppress(ConnectionError):
            await self._socket.send_bytes(data)


def described(context: Context, session: WebSocketSession) -> JSON:
    """What was agreed, and what there is: capacity and metadata."""
    sight = context.cameras[session.camera].feed.sight
    return {
        "id": session.id,
        "camera": session.camera,
        "agreement": msgspec.to_builtins(session.agreement),
        "presets": {name: dict(zip(("width", "quality", "fps"), v, strict=True)) for name, v in PRESETS.items()},
        "capacity": {"sessions": len(context.sessions.all), "most": context.mjpeg.max_sessions},
        "source": {
            "width": sight.geometry.width if sight.geometry else 0,
            "height": sight.geometry.height if sight.geometry else 0,
            "fps": round(sight.fps, 2),
        },
    }


def figures(context: Context, session: WebSocketSession) -> JSON:
    """How it went so far, and how much of its rate the machine can afford."""
    throttle = context.session_throttle
    return {"id": session.id, **asdict(session.statistics), "share": throttle.share, "reason": throttle.reason}


def binary(picture: JpegPicture) -> bytes:
    """One picture as a binary message: u64 frame id, u64 wall clock in ns, JPEG."""
    return struct.pack(">QQ", max(0, picture.frame_id), picture.captured_utc_ns) + picture.jpeg


def spelled(picture: JpegPicture) -> JSON:
    """One picture as the fields of a text message."""
    return {
        "frame_id": picture.frame_id,
        "timestamp": picture.captured_utc_ns / 1e9,
        "width": picture.width,
        "height": picture.height,
        "dark_score": picture.dark_score,
        "night": picture.night,
        "jpeg": b64encode(picture.jpeg).decode(),
    }


Say = Callable[..., Awaitable[None]]
"""Sends one text message: type, then its fields."""


class WebSocketSender:
    """One session on one connection; a viewer in the fan-out's sense."""

    def __init__(
        self,
        context: Context,
        session: WebSocketSession,
        say: Say,
        send: Callable[[bytes], Awaitable[None]],
        counts: Sent,
    ) -> None:
        self.session = session
        self.counts = counts
        self._context, self._say, self._send_bytes = context, say, send
        self._joined: tuple[str, Variant] | None = None
        self._came = asyncio.Event()
        self._told = ""
        """The reason for being slow that the client knows."""
        self._silent = False
        """The client knows that there is no signal."""

    def begin(self) -> None:
        """Take a place among the viewers. Raises: TooMany."""
        self._join(self.session.camera, self.session.agreement)

    def end(self) -> None:
        """Give the place back."""
        if self._joined is not None:
            camera, variant = self._joined
            self._joined = None
            self._context.cameras[camera].fanout.leave(variant, self)

    def change(self, camera: str, agreement: SessionOptions) -> None:
        """Go over to another agreement. Raises: TooMany, and then nothing has changed."""
        session = self.session
        self.end()
        try:
            self._join(camera, agreement)
        except TooManyViewers:
            self._join(session.camera, session.agreement)
            raise
        session.camera, session.agreement = camera, agreement

    def offer(self, picture: JpegPicture) -> None:
        """Take the newest picture; `push` or the client's request does the rest."""
        self.session.offer(picture)
        self._came.set()

    async def push(self) -> None:
        """Send pictures as they come and limits allow, until cancelled; tell when the machine is busy and when not."""
        while True:
            await self._came.wait()
            self._came.clear()
            await self._tell_throttle()
            if self.session.agreement.mode != "push":
                continue
            taken = self.session.take(time.monotonic(), self._context.session_throttle.share)
            if isinstance(taken, JpegPicture):
                self._silent = False
                await self._send(taken)
            elif taken == "no_signal":
                await self._tell_silence()
            elif taken != "nothing_new" and (due_s := self.session.due_s(time.monotonic())):
                await asyncio.sleep(due_s)
                self._came.set()

    async def answer(self) -> None:
        """Answer one request_frame: with a picture, or with no_frame and why."""
        taken = self.session.take(time.monotonic(), self._context.session_throttle.share)
        if isinstance(taken, JpegPicture):
            await self._send(taken)
            return
        self.session.statistics.no_frame += 1
        await self._no_frame(taken)

    # ---- inside

    def _join(self, camera: str, agreement: SessionOptions) -> None:
        variant = agreement.variant(self._context.mjpeg.fps)
        self._context.cameras[camera].fanout.join(variant, self)
        self._joined = camera, variant

    async def _send(self, picture: JpegPicture) -> None:
        self.counts.sent += 1
        self.counts.bytes += len(picture.jpeg)
        if self.session.agreement.format == "binary":
            await self._send_bytes(binary(picture))
        else:
            await self._say("frame", **spelled(picture))

    async def _no_frame(self, code: str) -> None:
        reason = {"busy": self._context.session_throttle.reason, "no_signal": self.session.silence}.get(code, "")
        await self._say("no_frame", code=code, reason=reason, retry_s=round(self.session.due_s(time.monotonic()), 3))

    async def _tell_silence(self) -> None:
        """Once, not with each "No signal" picture."""
        if not self._silent:
            self._silent = True
            await self._no_frame("no_signal")

    async def _tell_throttle(self) -> None:
        throttle = self._context.session_throttle
        if throttle.reason != self._told:
            self._told = throttle.reason
            kind = "throttled" if throttle.reason else "unthrottled"
            await self._say(kind, share=throttle.share, reason=throttle.reason)
