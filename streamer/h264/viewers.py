"""Viewers of live H.264: which fragments each one gets, and which are dropped when it cannot keep up. No waiting here.

A viewer that falls behind skips everything up to the next key frame.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec
from aiohttp import web

from shmcam.runtime.clock import now_ns
from shmcam.video.annexb import ParameterSets, to_annexb
from shmcam.video.fmp4_writer import MuxedFrame
from streamer.h264.live_video import GOP_BYTES_MAX, InitSegment, LiveVideo
from streamer.http.endless_response import RawStream
from streamer.monitoring.viewers import Sent

FRAGMENTS_MAX = 120
"""Messages that may wait for one viewer when a key frame comes, 4 s at 30 fps; beyond it that one goes on. A newcomer's
group of pictures may be longer (recorder.gop_s), so between two key frames GOP_BYTES_MAX is the limit."""


class HttpVideoViewer:
    """A viewer of `/live.mp4`."""

    def __init__(self) -> None:
        self.counts = Sent()
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        """Set when the encoder was opened anew: a file cannot change its size, so the player must connect again."""
        self._raw_stream: RawStream | None = None
        self._blocked = False
        self._needs_key = True
        self._base_us = -1

    def open(self, init_segment: InitSegment) -> None:
        """Begins a stream; once a header has been sent, a second stream ends this viewer."""
        if self._raw_stream is not None:
            self.ended.set()
        self.opened.set()

    def begin(self, raw_stream: RawStream, live: LiveVideo) -> None:
        """Sends the header of the stream that has been opened, then its newest group of pictures."""
        self._raw_stream = raw_stream
        if live.state is not None:  # always so: it stays while there are viewers
            raw_stream.write(live.state.init_segment.header)
            for fragment in live.state.fragments:
                self.offer(fragment)

    def resume(self) -> None:
        """Notes that the kernel has room again; the raw stream calls it."""
        self._blocked = False

    def offer(self, fragment: MuxedFrame) -> None:
        """Writes a fragment, unless one before it is missing or it belongs to the next stream."""
        if self.ended.is_set() or self._raw_stream is None:
            return
        self._needs_key = (self._needs_key or self._blocked) and not (fragment.key and not self._blocked)
        if self._needs_key:
            self.counts.skipped += 1
            return
        if self._base_us < 0:
            self._base_us = fragment.time_us
        data = fragment.bytes_at(self._base_us)
        self._blocked = not self._raw_stream.write(data)
        self.counts.sent += 1
        self.counts.bytes += len(data)


class StreamDescription(msgspec.Struct, frozen=True):
    """The text message before each stream on the WebSocket."""

    type: str
    """film."""
    mime: str
    """For MediaSource.addSourceBuffer."""
    width: int
    height: int


class FragmentAge(msgspec.Struct, frozen=True):
    """The text message before a fragment, once a second: so the page knows how old what it shows is."""

    type: str
    """age."""
    age_s: float
    """From the capture of the fragment's frame until now."""


AGE_PERIOD_NS = 1_000_000_000


class WebSocketVideoViewer:
    """A viewer of `/ws/live`: a bounded queue of messages, emptied by a task."""

    def __init__(self) -> None:
        self.counts = Sent()
        self.opened = asyncio.Event()
        self._opening: deque[str | bytes] = deque()
        """Description and header of the stream, sent before the queue and never dropped: nothing shows without them."""
        self._queue: deque[str | bytes] = deque()
        self._queued_bytes = 0
        self._new_message = asyncio.Event()
        self._needs_key = True
        self._base_us = -1
        self._age_sent_ns = 0

    def open(self, init_segment: InitSegment) -> None:
        """Begins a stream, the first or another; messages of the one before are dropped."""
        mime = f'video/mp4; codecs="{init_segment.sets.codec}"'
        description = StreamDescription("film", mime, init_segment.width, init_segment.height)
        self._opening = deque((msgspec.json.encode(description).decode(), init_segment.header))
        self._lose()
        self._base_us = -1
        self.opened.set()
        self._new_message.set()

    def offer(self, fragment: MuxedFrame) -> None:
        """Queues a fragment, unless one before it is missing."""
        if self._queued_bytes > GOP_BYTES_MAX or (fragment.key and len(self._queue) > FRAGMENTS_MAX):
            self._lose()
        if self._needs_key and not fragment.key:
            self.counts.skipped += 1
            return
        self._needs_key = False
        if self._base_us < 0:
            self._base_us = fragment.time_us
        age_ns = now_ns() - fragment.captured_ns
        if fragment.captured_ns - self._age_sent_ns >= AGE_PERIOD_NS:
            self._age_sent_ns = fragment.captured_ns
            self._enqueue(msgspec.json.encode(FragmentAge("age", round(age_ns / 1e9, 3))).decode())
        self._enqueue(fragment.bytes_at(self._base_us))
        self._new_message.set()

    async def run(self, socket: web.WebSocketResponse) -> None:
        """Sends the queue until the socket ends."""
        with suppress(ConnectionError):  # the viewer has left; the task that reads from the socket notices it
            while not socket.closed:
                await self._new_message.wait()
                self._new_message.clear()
                while messages := self._opening or self._queue:
                    message = messages.popleft()
                    if messages is self._queue:
                        self._queued_bytes -= len(message)
                    await self._send(socket, message)

    def _enqueue(self, message: str | bytes) -> None:
        self._queue.append(message)
        self._queued_bytes += len(message)

    def _lose(self) -> None:
        """Drops all fragments that wait; the next key frame goes on."""
        self.counts.skipped += sum(isinstance(message, bytes) for message in self._queue)
        self._queue.clear()
        self._queued_bytes, self._needs_key = 0, True

    async def _send(self, socket: web.WebSocketResponse, message: str | bytes) -> None:
        if isinstance(message, str):
            await socket.send_str(message)
            return
        await socket.send_bytes(message)
        self.counts.sent += 1
        self.counts.bytes += len(message)


UNITS_MAX = 30
"""Access units that may wait for one WebRTC viewer, 1 s at 30 fps: older ones are not live any more."""


class RtpVideoViewer:
    """A viewer of WebRTC: a bounded queue of access units, emptied by the task that sends them."""

    def __init__(self, request_key: Callable[[], None], is_congested: Callable[[], bool]) -> None:
        """`request_key` asks the recorder, or does nothing; while `is_congested`, the network takes no more."""
        self.counts = Sent()
        self._request_key, self._is_congested = request_key, is_congested
        self._queue: deque[tuple[bytes, int]] = deque()
        self._new_unit = asyncio.Event()
        self._sets: ParameterSets | None = None
        self._is_sending = False
        self._needs_key = True
        """Nothing can be sent before the next key frame."""
        self._wants_key = True
        """The other end cannot go on, or shows a broken picture, until the next key frame."""

    def want_key(self) -> None:
        """Asks for a key frame, again with each frame until it comes."""
        self._wants_key = True
        self._request_key()

    def open(self, init_segment: InitSegment) -> None:
        """Begins a stream, the first or another: its key frame brings its parameter sets along."""
        self._sets = init_segment.sets
        self._lose()

    def offer(self, fragment: MuxedFrame) -> None:
        """Queues a frame, unless one before it is missing, or nothing can be sent yet."""
        if not self._is_sending:
            return
        if len(self._queue) >= UNITS_MAX or self._is_congested():
            self._lose()
        if fragment.key:
            self._needs_key = self._wants_key = False
        elif self._needs_key or self._wants_key:
            self._request_key()
        if self._needs_key:
            self.counts.skipped += 1
            return
        self._queue.append((to_annexb(fragment.unit, self._sets if fragment.key else None), fragment.time_us))
        self._new_unit.set()

    async def next_unit(self) -> tuple[bytes, int]:
        """Waits for the next frame. Returns: it in Annex B, and its time, microseconds of the sensor's clock.

        The first call, when the connection is there, asks for a key frame; frames from before are not sent.
        """
        if not self._is_sending:
            self._is_sending = True
            self.want_key()
        while not self._queue:
            self._new_unit.clear()
            await self._new_unit.wait()
        unit = self._queue.popleft()
        self.counts.sent += 1
        self.counts.bytes += len(unit[0])
        return unit

    def _lose(self) -> None:
        self.counts.skipped += len(self._queue)
        self._queue.clear()
        self._needs_key = True
