"""What a WebSocket session is told about itself and about its pictures."""

from __future__ import annotations

import struct
from base64 import b64encode
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web

from streamer.agreement import PRESETS
from streamer.context import Context
from streamer.picture import Picture
from streamer.session import Session

JSON = dict[str, Any]


class Voice:
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


def described(context: Context, session: Session) -> JSON:
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


def figures(context: Context, session: Session) -> JSON:
    """How it went so far, and how much of its rate the machine can afford."""
    throttle = context.throttle
    return {"id": session.id, **asdict(session.statistics), "share": throttle.share, "reason": throttle.reason}


def binary(picture: Picture) -> bytes:
    """One picture as a binary message: u64 frame id, u64 wall clock in ns, JPEG."""
    return struct.pack(">QQ", max(0, picture.frame_id), picture.captured_utc_ns) + picture.jpeg


def spelled(picture: Picture) -> JSON:
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
