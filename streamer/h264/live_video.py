"""Live H.264 of one camera: muxes the recorder's packets once and gives the fragments to every viewer.

A viewer begins with the newest key frame and the frames after it. Encoded frames depend on each other, so a viewer
that cannot keep up loses everything up to the next key frame; the other viewers lose nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from shm_ring import LiveRing, RingNotReady
from shm_ring.records.packets import Unit, follow, latest_key
from shmcam.runtime.clock import now_ns
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop
from shmcam.video import fmp4_writer
from shmcam.video.annexb import ParameterSets, find_parameter_sets
from shmcam.video.fmp4_writer import MuxedFrame

GOP_BYTES_MAX = 8 * 1024 * 1024
"""The bytes kept for new viewers; a GOP of 1080p at 10 Mbit/s and 2 s has 2.5 MB. A longer one is dropped, and the
next key frame begins a new one."""

IDLE_S = 0.5
KEY_PERIOD_S = 1.0
"""A key frame is as large as ten others, so one viewer with a bad connection must not make every frame one."""

OLD_NS = 10_000_000_000
"""Older packets are not live any more; the newest GOP of a working recorder is younger (recorder.gop_s)."""


class InitSegment(Struct, frozen=True):
    """The bytes before the first fragment, and the video that they describe."""

    header: bytes
    sets: ParameterSets
    width: int
    """At which it is shown, in square pixels."""
    height: int


class LiveViewer(Protocol):
    """A viewer of the muxed stream."""

    def open(self, init_segment: InitSegment) -> None:
        """Begins a stream: first of all, and again when the encoder was opened anew."""

    def offer(self, fragment: MuxedFrame) -> None:
        """Takes the next fragment, or drops it; never waits, never raises."""


@dataclass(slots=True)
class StreamState:
    """The stream of one encoder and its newest group of pictures."""

    init_segment: InitSegment
    stream: int
    """Counts openings of the encoder, as in the packets: each recorder from 1 on."""
    fragments: list[MuxedFrame] = field(default_factory=list)
    """From the newest key frame on."""
    kept_bytes: int = 0

    def keep(self, fragment: MuxedFrame) -> None:
        """Adds a fragment to the newest group of pictures; a key frame begins the next group."""
        if fragment.key or self.kept_bytes > GOP_BYTES_MAX:
            self.fragments, self.kept_bytes = [], 0
        if fragment.key or self.fragments:
            self.fragments.append(fragment)
            self.kept_bytes += len(fragment.after)


class LiveVideo:
    """The viewers of one camera's H.264, on the event loop's thread."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self.viewers: set[LiveViewer] = set()
        self.wanted = threading.Event()
        """Set while there are viewers; the feed sleeps otherwise."""
        self.state: StreamState | None = None
        self.age_s: float | None = None
        """Age of the newest fragment when it was given to the viewers; None: there is none."""
        self.is_key_wanted = False
        """The next Watch asks the recorder for a key frame."""
        self._key_requested_s = -KEY_PERIOD_S

    def request_key(self, now_s: float) -> bool:
        """Notes that a viewer needs a key frame; `now_s` is monotonic.

        Returns: whether the recorder is to be asked now: once in KEY_PERIOD_S at most. A viewer without one asks again.
        """
        if now_s - self._key_requested_s < KEY_PERIOD_S:
            return False
        self._key_requested_s, self.is_key_wanted = now_s, True
        return True

    def join(self, viewer: LiveViewer) -> None:
        """Adds a viewer and gives it the newest group of pictures, if there is one."""
        self.viewers.add(viewer)
        self.wanted.set()
        if self.state is not None:
            viewer.open(self.state.init_segment)
            for fragment in self.state.fragments:
                viewer.offer(fragment)

    def leave(self, viewer: LiveViewer) -> None:
        """Removes a viewer; without viewers all work ends."""
        self.viewers.discard(viewer)
        if not self.viewers:
            self.wanted.clear()
            self.state = self.age_s = None

    def deliver(self, stream: int, init_segment: InitSegment | None, fragment: MuxedFrame) -> None:
        """Gives the feed's next fragment to every viewer; `init_segment` comes with each key frame."""
        # A recorder that was restarted counts from 1 again, maybe with another preset.
        if self.state is None or self.state.stream != stream or init_segment not in (None, self.state.init_segment):
            if init_segment is None or not self.viewers:
                return
            self.state = StreamState(init_segment, stream)
            for viewer in tuple(self.viewers):
                viewer.open(init_segment)
        self.state.keep(fragment)
        self.age_s = (now_ns() - fragment.captured_ns) / 1e9
        for viewer in tuple(self.viewers):
            viewer.offer(fragment)


class LiveFeed:
    """The thread of one camera: reads packets while there are viewers."""

    def __init__(self, live: LiveVideo, ring: LiveRing, *, loop: asyncio.AbstractEventLoop, stop: Stop) -> None:
        self._live, self._ring, self._loop, self._stop = live, ring, loop, stop
        self._number = 0
        self.thread = Worker(f"live-{live.camera}", self._run, stop)
        """It looks at `stop` at least every IDLE_S."""

    # ---- the thread

    def _run(self) -> None:
        while not self._stop.requested:
            if self._live.wanted.wait(IDLE_S):
                self._follow(self._find_start())

    def _find_start(self) -> int | str:
        """Returns the sequence of the newest key frame, so that the first picture is there at once; else "new"."""
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
                self._mux(unit, self._loop.call_soon_threadsafe)

    def _mux(self, unit: Unit, call: Callable[..., object]) -> None:
        if now_ns() - unit.meta.captured_ns > max(OLD_NS, 2000 * unit.duration_us):
            return  # left in the ring by a recorder that has ended: not live any more
        sets = find_parameter_sets(unit.data) if unit.key else None
        self._number += 1
        fragment = fmp4_writer.mux_unit(unit, self._number)
        call(self._live.deliver, unit.stream, sets and init_segment_of(sets, unit), fragment)


def init_segment_of(sets: ParameterSets, unit: Unit) -> InitSegment:
    """Returns the first bytes for a viewer of video with these parameter sets and this unit's size."""
    header = fmp4_writer.make_header(sets, unit.width, unit.height, unit.sample_aspect)
    shown_width = round(unit.width * unit.sample_aspect[0] / unit.sample_aspect[1])
    return InitSegment(header, sets, shown_width, unit.height)
