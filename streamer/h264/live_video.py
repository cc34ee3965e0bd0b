"""Live H.264 of one camera: the recorder's packets, muxed once, to every viewer who can play them.

A viewer begins with the newest key frame and what came after it. Encoded frames depend on each other, so a viewer who
cannot keep up loses everything up to the next key frame, and only that viewer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from shm_ring import LiveRing, RingNotReady
from shm_ring.records.packets import Unit, follow, latest_key
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop
from shmcam.runtime.worker import Worker
from shmcam.video.annexb import ParameterSets, parameter_sets, to_avcc
from shmcam.video.fmp4_writer import MuxedFrame, fragment, header

GOP_BYTES_MAX = 8 * 1024 * 1024
"""What is kept for newcomers; a GOP of 1080p at 10 Mbit/s and 2 s is 2.5 MB. A longer one begins at its next key."""

IDLE_S = 0.5
OLD_NS = 10_000_000_000
"""Older packets are not live any more; the newest GOP of a working recorder is younger (recorder.gop_s)."""


@dataclass(frozen=True, slots=True)
class InitSegment:
    """What a viewer gets before the first fragment."""

    header: bytes
    codec: str
    """`avc1.64001f`."""
    width: int
    height: int


class LiveViewer(Protocol):
    """Somebody who plays."""

    def open(self, opening: InitSegment) -> None:
        """A new film begins: first of all, and when the encoder was opened anew."""

    def play(self, piece: MuxedFrame) -> None:
        """Take the next fragment; never wait, never raise."""


@dataclass(slots=True)
class StreamState:
    """What is known of the stream now."""

    opening: InitSegment
    stream: int
    pieces: list[MuxedFrame] = field(default_factory=list)
    """From the newest key frame on."""
    kept_bytes: int = 0


class LiveVideo:
    """The viewers of one camera's H.264, on the event loop's thread."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self.viewers: set[LiveViewer] = set()
        self.wanted = threading.Event()
        """Set while somebody watches; the feed sleeps otherwise."""
        self.film: StreamState | None = None

    def join(self, viewer: LiveViewer) -> None:
        """Let a viewer in, with the newest key frame if there is one."""
        self.viewers.add(viewer)
        self.wanted.set()
        if self.film is not None:
            viewer.open(self.film.opening)
            for piece in self.film.pieces:
                viewer.play(piece)

    def leave(self, viewer: LiveViewer) -> None:
        """A viewer is gone; with the last one all work ends."""
        self.viewers.discard(viewer)
        if not self.viewers:
            self.wanted.clear()
            self.film = None

    def take(self, stream: int, opening: InitSegment | None, piece: MuxedFrame) -> None:
        """Take what the feed has muxed; `opening` comes with each key frame."""
        if self.film is None or self.film.stream != stream:
            if opening is None or not self.viewers:
                return
            self.film = StreamState(opening, stream)
            for viewer in tuple(self.viewers):
                viewer.open(opening)
        _keep(self.film, piece)
        for viewer in tuple(self.viewers):
            viewer.play(piece)


def _keep(film: StreamState, piece: MuxedFrame) -> None:
    if piece.key or film.kept_bytes > GOP_BYTES_MAX:
        film.pieces, film.kept_bytes = [], 0
    if piece.key or film.pieces:
        film.pieces.append(piece)
        film.kept_bytes += len(piece.after)


class LiveFeed:
    """The thread of one camera: waits for packets while somebody watches."""

    def __init__(self, live: LiveVideo, ring: LiveRing, *, loop: asyncio.AbstractEventLoop, stop: Stop) -> None:
        self._live, self._ring, self._loop, self._stop = live, ring, loop, stop
        self._number = 0
        self.thread = Worker(f"live-{live.camera}", self._run, stop)
        """It looks at `stop` at least every IDLE_S."""

    # ---- the thread

    def _run(self) -> None:
        while not self._stop.requested:
            if self._live.wanted.wait(IDLE_S):
                self._follow(self._newest_key())

    def _newest_key(self) -> int | str:
        """Where to begin, so that the first picture is there at once."""
        try:
            key = latest_key(self._ring)
        except RingNotReady:
            return "new"
        return "new" if key is None else key

    def _follow(self, start: int | str) -> None:
        for unit in follow(self._ring, start=start, idle_s=IDLE_S):
            if not self._live.wanted.is_set():
                return
            if unit is not None:
                self._pass_on(unit, self._loop.call_soon_threadsafe)

    def _pass_on(self, unit: Unit, call: Callable[..., object]) -> None:
        if now_ns() - unit.meta.captured_ns > max(OLD_NS, 2000 * unit.duration_us):
            return  # what a recorder that is gone left in the ring: live means live
        sets = parameter_sets(unit.data) if unit.key else None
        self._number += 1
        piece = fragment(
            to_avcc(unit.data),
            number=self._number,
            time_us=unit.pts_us,
            duration_us=unit.duration_us or 33_333,
            key=unit.key,
            captured_ns=unit.meta.captured_ns,
        )
        call(self._live.take, unit.stream, sets and opening_of(sets, unit.width, unit.height), piece)


def opening_of(sets: ParameterSets, width: int, height: int) -> InitSegment:
    """What a viewer gets first."""
    return InitSegment(header(sets, width, height), sets.codec, width, height)
