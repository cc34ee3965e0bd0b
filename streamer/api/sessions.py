"""REST: who is watching, and the WebSocket sessions."""

from __future__ import annotations

import time
from dataclasses import asdict

import msgspec

from shmcam.runtime.clock import iso
from streamer.api.endpoint import Call, Endpoint


class Viewer(msgspec.Struct, frozen=True):
    """One viewer who is there now."""

    id: int
    kind: str
    """mjpeg, h264, session, short or events."""
    camera: str
    peer: str
    variant: str
    since_utc: str
    seconds: float
    sent: int
    """Pictures, or fragments of video."""
    skipped: int
    bytes: int


class Viewers(msgspec.Struct, frozen=True):
    """Everybody who watches, and what was sent since start."""

    viewers: list[Viewer]
    served: dict[str, int]
    """Viewers since start, by kind."""
    bytes: dict[str, int]
    places: int
    """How many may watch at once."""


class SessionRow(msgspec.Struct, frozen=True):
    """One WebSocket session."""

    id: str
    camera: str
    label: str
    preset: str
    mode: str
    connected: bool
    """false: its connection broke, and it may be resumed for a while."""
    statistics: dict[str, int]


class SessionRows(msgspec.Struct, frozen=True):
    """All sessions, and how many there may be."""

    sessions: list[SessionRow]
    most: int


async def _viewers(call: Call) -> Viewers:
    viewers, totals = call.context.viewers, call.context.viewers.sum_up()
    now = time.monotonic()
    rows = [
        Viewer(
            id=one.number,
            kind=one.kind,
            camera=one.camera,
            peer=one.peer,
            variant=one.variant,
            since_utc=iso(int(one.since_utc_s * 1e9)),
            seconds=round(now - one.since_s, 1),
            sent=one.counts.sent,
            skipped=one.counts.skipped,
            bytes=one.counts.bytes,
        )
        for one in viewers.entries.values()
    ]
    return Viewers(rows, dict(totals.viewers), dict(totals.bytes), call.context.mjpeg.max_streams)


async def _sessions(call: Call) -> SessionRows:
    rows = [
        SessionRow(
            id=one.id,
            camera=one.camera,
            label=one.options.label,
            preset=one.options.preset,
            mode=one.options.mode,
            connected=one.disconnected_s is None,
            statistics=asdict(one.statistics),
        )
        for one in call.context.sessions.all
    ]
    return SessionRows(rows, call.context.mjpeg.max_sessions)


def endpoints() -> list[Endpoint]:
    """All of this topic."""
    return [
        Endpoint("GET", "/viewers", "sessions", "List who is watching", _viewers, Viewers),
        Endpoint("GET", "/sessions", "sessions", "List the WebSocket sessions", _sessions, SessionRows),
    ]
