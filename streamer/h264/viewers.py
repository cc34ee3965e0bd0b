"""Viewers of live H.264: what each is sent, and what is left out for one that cannot keep up. No waiting here."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

import msgspec
from aiohttp import web

from shmcam.video.fmp4_writer import MuxedFrame
from streamer.h264.live_video import InitSegment
from streamer.http.raw_stream import RawStream
from streamer.monitoring.viewers import Sent

BEHIND_MAX = 120
"""Fragments that may wait for a WebSocket viewer: 4 s at 30 fps; beyond it everything up to the next key is dropped."""


class HttpVideoViewer:
    """A viewer of `/live.mp4`; what does not fit is dropped up to the next key frame."""

    def __init__(self) -> None:
        self.counts = Sent()
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        """The encoder was opened anew: a file cannot change its size, so the player must come again."""
        self._outlet: RawStream | None = None
        self._opening: InitSegment | None = None
        self._early: list[MuxedFrame] = []
        self._blocked = False
        self._lost = True  # until the first key frame
        self._base_us = -1

    def open(self, opening: InitSegment) -> None:
        """A film begins; once its header has been sent, another one ends this player."""
        if self._outlet is not None:
            self.ended.set()
            return
        self._opening, self._early = opening, []
        self.opened.set()

    def begin(self, outlet: RawStream) -> None:
        """Send the film's header, then what has come meanwhile."""
        self._outlet = outlet
        outlet.write(self._opening.header if self._opening else b"")
        early, self._early = self._early, []
        for piece in early:
            self.play(piece)

    def writable(self) -> None:
        """There is room again."""
        self._blocked = False

    def play(self, piece: MuxedFrame) -> None:
        """Write it, unless something before it is missing, or it is of the next film."""
        if self.ended.is_set():
            return
        if self._outlet is None:
            self._early.append(piece) if len(self._early) < BEHIND_MAX else self._early.clear()
            return
        self._lost = (self._lost or self._blocked) and not (piece.key and not self._blocked)
        if self._lost:
            self.counts.skipped += 1
            return
        if self._base_us < 0:
            self._base_us = piece.time_us
        data = piece.at(self._base_us)
        self._blocked = not self._outlet.write(data)
        self.counts.sent += 1
        self.counts.bytes += len(data)


class Described(msgspec.Struct, frozen=True):
    """The text message before each film on the WebSocket."""

    type: str
    """film."""
    mime: str
    """For MediaSource.addSourceBuffer."""
    width: int
    height: int


class WebSocketVideoViewer:
    """A viewer on a WebSocket: a bounded queue of messages, emptied by a task."""

    def __init__(self) -> None:
        self.counts = Sent()
        self.opened = asyncio.Event()
        self._queue: deque[str | bytes] = deque()
        self._came = asyncio.Event()
        self._lost = True
        self._base_us = -1

    def open(self, opening: InitSegment) -> None:
        """A film begins, the first or another."""
        mime = f'video/mp4; codecs="{opening.codec}"'
        said = Described("film", mime, opening.width, opening.height)
        self._queue.clear()
        self._queue.extend((msgspec.json.encode(said).decode(), opening.header))
        self._lost, self._base_us = True, -1
        self.opened.set()
        self._came.set()

    def play(self, piece: MuxedFrame) -> None:
        """Queue it, unless something before it is missing."""
        if len(self._queue) > BEHIND_MAX:
            self._queue.clear()
            self._lost = True
        if self._lost and not piece.key:
            self.counts.skipped += 1
            return
        self._lost = False
        if self._base_us < 0:
            self._base_us = piece.time_us
        self._queue.append(piece.at(self._base_us))
        self._came.set()

    async def run(self, socket: web.WebSocketResponse) -> None:
        """Send what comes, until the socket ends."""
        with suppress(ConnectionError):  # the viewer has left; whoever reads from the socket finds out
            while not socket.closed:
                await self._came.wait()
                self._came.clear()
                while self._queue:
                    await self._send(socket, self._queue.popleft())

    async def _send(self, socket: web.WebSocketResponse, message: str | bytes) -> None:
        if isinstance(message, str):
            await socket.send_str(message)
            return
        await socket.send_bytes(message)
        self.counts.sent += 1
        self.counts.bytes += len(message)
