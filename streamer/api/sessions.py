"""The endpoints of the viewers and of the WebSocket sessions."""

from __future__ import annotations

import time
from dataclasses import asdict

import msgspec

from shmcam.runtime.clock import to_iso
from streamer.api.endpoint import Call, Endpoint


class Viewer(msgspec.Struct, frozen=True):
    """One connected viewer."""

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
    """All connected viewers, and the sums since start."""

    viewers: list[Viewer]
    served: dict[str, int]
    """Viewers since start, by kind."""
    bytes: dict[str, int]
    places: int
    """The limit of viewers at once."""


class SessionRow(msgspec.Struct, frozen=True):
    """One WebSocket session."""

    id: str
    camera: str
    label: str
    preset: str
    mode: str
    connected: bool
    """false: its connection broke; it may be resumed for a while."""
    statistics: dict[str, int]


class SessionRows(msgspec.Struct, frozen=True):
    """All sessions, and their limit."""

    sessions: list[SessionRow]
    most: int


async def _list_viewers(call: Call) -> Viewers:
    viewers, totals = call.context.viewers, call.context.viewers.sum_up()
    now = time.monotonic()
    rows = [
        Viewer(
            id=entry.number,
            kind=entry.kind,
            camera=entry.camera,
            peer=entry.peer,
            variant=entry.variant,
            since_utc=to_iso(int(entry.since_utc_s * 1e9)),
            seconds=round(now - entry.since_s, 1),
            sent=entry.counts.sent,
            skipped=entry.counts.skipped,
            bytes=entry.counts.bytes,
        )
        for entry in viewers.entries.values()
    ]
    return Viewers(rows, dict(totals.viewers), dict(totals.bytes), call.context.mjpeg.max_streams)


async def _list_sessions(call: Call) -> SessionRows:
    rows = [
        SessionRow(
            id=session.id,
            camera=session.camera,
            label=session.options.label,
            preset=session.options.preset,
            mode=session.options.mode,
            connected=session.disconnected_s is None,
            statistics=asdict(session.statistics),
        )
        for session in call.context.sessions.all
    ]
    return SessionRows(rows, call.context.mjpeg.max_sessions)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/viewers", "sessions", "List who is watching", _list_viewers, Viewers),
    Endpoint("GET", "/sessions", "sessions", "List the WebSocket sessions", _list_sessions, SessionRows),
)
