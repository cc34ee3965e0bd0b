"""The sending side of a WebSocket session: its place in the fan-out, its pace, and the messages to its client."""

from __future__ import annotations

import asyncio
import struct
import time
from base64 import b64encode
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web

from shmcam.runtime.non_utf8_escapes import encode_json
from streamer.http.context import Context
from streamer.monitoring.viewers import Sent
from streamer.pictures.fanout import TooManyViewers
from streamer.pictures.jpeg_picture import JpegPicture
from streamer.pictures.variant import Variant
from streamer.websocket.session_state import PRESETS, SessionOptions, WebSocketSession

JSON = dict[str, Any]


class WebSocketWriter:
    """The writing half of one connection. A client that has left is ignored: the reading half notices it."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send_json(self, kind: str, **values: object) -> None:
        """Sends a text message: a JSON object of this type."""
        with suppress(ConnectionError):
            await self._socket.send_str(encode_json({"type": kind, **values}).decode())

    async def send_bytes(self, data: bytes) -> None:
        """Sends a binary message."""
        with suppress(ConnectionError):
            await self._socket.send_bytes(data)


def describe_session(context: Context, session: WebSocketSession) -> JSON:
    """Returns the fields of the message `session`: the options in force, the presets, the capacity, the source."""
    status = context.cameras[session.camera].feed.status
    return {
        "id": session.id,
        "camera": session.camera,
        "agreement": msgspec.to_builtins(session.options),
        "presets": {name: dict(zip(("width", "quality", "fps"), v, strict=True)) for name, v in PRESETS.items()},
        "capacity": {"sessions": len(context.sessions.all), "most": context.mjpeg.max_sessions},
        "source": {
            "width": status.geometry.shown_width if status.geometry else 0,
            "height": status.geometry.height if status.geometry else 0,
            "fps": round(status.fps, 2),
        },
    }


def statistics_of(context: Context, session: WebSocketSession) -> JSON:
    """Returns the counts of a session, and the part of its rate that the machine can afford with the reason."""
    throttle = context.session_throttle
    return {"id": session.id, **asdict(session.statistics), "share": throttle.share, "reason": throttle.reason}


def to_binary(picture: JpegPicture) -> bytes:
    """Returns a picture as a binary message: u64 frame id, u64 wall clock in ns (both big-endian), JPEG."""
    return struct.pack(">QQ", max(0, picture.frame_id), picture.captured_utc_ns) + picture.jpeg


def to_json(picture: JpegPicture) -> JSON:
    """Returns a picture as the fields of a text message, the JPEG in base64."""
    return {
        "frame_id": picture.frame_id,
        "timestamp": picture.captured_utc_ns / 1e9,
        "width": picture.width,
        "height": picture.height,
        "dark_score": picture.dark_score,
        "night": picture.night,
        "jpeg": b64encode(picture.jpeg).decode(),
    }


class WebSocketSender:
    """One session on one connection; a PictureViewer of the fan-out."""

    def __init__(self, context: Context, session: WebSocketSession, writer: WebSocketWriter, counts: Sent) -> None:
        self.session = session
        self.counts = counts
        self._context, self._writer = context, writer
        self._source: tuple[str, Variant] | None = None
        """The camera and variant it is a viewer of; None: of none."""
        self._new_picture = asyncio.Event()
        self._reason_sent = ""
        """The throttle's reason that the client was last sent."""
        self._no_signal_sent = False

    def join(self) -> None:
        """Joins the fan-out of the session's camera. Raises: TooManyViewers."""
        self._join(self.session.camera, self.session.options)

    def leave(self) -> None:
        """Leaves the fan-out."""
        if self._source is not None:
            camera, variant = self._source
            self._source = None
            self._context.cameras[camera].fanout.leave(variant, self)

    def change(self, camera: str, options: SessionOptions) -> None:
        """Changes camera and options of the session. Raises: TooManyViewers, and then nothing has changed."""
        session = self.session
        self.leave()
        try:
            self._join(camera, options)
        except TooManyViewers:
            self._join(session.camera, session.options)
            raise
        session.camera, session.options = camera, options

    def offer(self, picture: JpegPicture) -> None:
        """Keeps the newest picture, for `push` or the client's next request."""
        self.session.offer(picture)
        self._new_picture.set()

    async def push(self) -> None:
        """Sends pictures as they come and limits allow, and each change of the throttle, until cancelled."""
        while True:
            await self._new_picture.wait()
            self._new_picture.clear()
            await self._send_throttle_change()
            if self.session.options.mode != "push":
                continue
            result = self.session.take(time.monotonic(), self._context.session_throttle.share)
            if isinstance(result, JpegPicture):
                self._no_signal_sent = False
                await self._send_picture(result)
            elif result == "no_signal":
                await self._send_no_signal_once()
            elif result != "nothing_new" and (delay_s := self.session.delay_s(time.monotonic())):
                await asyncio.sleep(delay_s)
                self._new_picture.set()

    async def answer_request(self) -> None:
        """Answers one request_frame: with a picture, or with no_frame and the reason."""
        result = self.session.take(time.monotonic(), self._context.session_throttle.share)
        if isinstance(result, JpegPicture):
            await self._send_picture(result)
            return
        self.session.statistics.no_frame += 1
        await self._send_no_frame(result)

    # ---- inside

    def _join(self, camera: str, options: SessionOptions) -> None:
        variant = options.to_variant(self._context.mjpeg.fps)
        self._context.cameras[camera].fanout.join(variant, self)
        self._source = camera, variant

    async def _send_picture(self, picture: JpegPicture) -> None:
        self.counts.sent += 1
        self.counts.bytes += len(picture.jpeg)
        if self.session.options.format == "binary":
            await self._writer.send_bytes(to_binary(picture))
        else:
            await self._writer.send_json("frame", **to_json(picture))

    async def _send_no_frame(self, code: str) -> None:
        session = self.session
        reasons = {"busy": self._context.session_throttle.reason, "no_signal": session.no_signal_reason}
        retry_s = round(session.delay_s(time.monotonic()), 3)
        await self._writer.send_json("no_frame", code=code, reason=reasons.get(code, ""), retry_s=retry_s)

    async def _send_no_signal_once(self) -> None:
        """Sends no_frame for the first "No signal" picture, not for its repeats."""
        if not self._no_signal_sent:
            self._no_signal_sent = True
            await self._send_no_frame("no_signal")

    async def _send_throttle_change(self) -> None:
        throttle = self._context.session_throttle
        if throttle.reason != self._reason_sent:
            self._reason_sent = throttle.reason
            kind = "throttled" if throttle.reason else "unthrottled"
            await self._writer.send_json(kind, share=throttle.share, reason=throttle.reason)
