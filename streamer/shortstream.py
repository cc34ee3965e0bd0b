"""The command `shortstream [n]`: n pictures on the control connection, each after its length, closed by a length of 0.

They are the last n frames of the ring, at once; with `live` the next n.

    u32 big-endian length, JPEG, … , u32 0, then the text STREAM_DONE: sent=…, skipped=…, available=…

The bytes travel in chunks that the hub passes on as they are.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from shm_ring import FrameOverwritten, RingError, RingReader
from shmcam.config.settings import Settings
from shmcam.control.messages import CHUNK_BYTES_MAX, Chunk, Reply, ShortStream
from shmcam.imaging.jpeg import JpegEncoder
from streamer.http.context import Context, StreamedCamera
from streamer.monitoring.viewers import Sent
from streamer.pictures.fanout import TooManyViewers
from streamer.pictures.jpeg_picture import JpegPicture, encode_picture
from streamer.pictures.variant import Variant

FRAME_S = 15.0
"""The longest wait for a picture, then the stream ends; longer than two of the longest night exposures."""

BACKLOG_S = 10.0
"""The longest time in which the connection may take no byte, then the stream ends."""

SendReply = Callable[[Any], bool]
"""Queues a chunk or the reply on the control connection. Returns: whether there was room."""


class ShortStreamViewer:
    """A viewer that keeps the newest picture until it is fetched."""

    def __init__(self) -> None:
        self.counts = Sent()
        self._picture: JpegPicture | None = None
        self._new_picture = asyncio.Event()

    def offer(self, picture: JpegPicture) -> None:
        """Keeps a picture, in place of one that was not fetched."""
        self.counts.skipped += self._picture is not None
        self._picture = picture
        self._new_picture.set()

    async def next_picture(self, timeout_s: float) -> JpegPicture:
        """Waits for a picture that was not fetched yet. Raises: TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self._new_picture.wait()
        self._new_picture.clear()
        picture, self._picture = self._picture, None
        if picture is None:
            raise TimeoutError("woken without a picture")
        return picture


async def send_short_stream(context: Context, camera: StreamedCamera, command: ShortStream, send: SendReply) -> None:
    """Sends the pictures of one command, then the reply with the counts."""
    if command.when == "last" and command.exposure == "live":
        last = await asyncio.to_thread(find_last_frames, context.settings, camera.name, command.count)
        if last.sequences:
            await _send_last(context, camera, command, last, send)
            return
    await _send_live(context, camera, command, send)  # also where there is no frame yet: it says why


async def _send_last(
    context: Context, camera: StreamedCamera, command: ShortStream, last: LastFrames, send: SendReply
) -> None:
    """Sends the last frames of the ring; those overwritten before their turn are skipped."""
    mjpeg, counts, problem = context.mjpeg, Sent(), ""
    quality = command.quality or mjpeg.quality
    variant = Variant(mjpeg.fps, mjpeg.width, quality, gray=False, stack=1, long=False)
    with context.viewers.track("short", camera.name, "control", str(variant), counts):
        try:
            for sequence in last.sequences:
                jpeg = await asyncio.to_thread(_encode_frame, last, sequence, variant)
                if jpeg is None:
                    continue
                await _send_chunks(struct.pack(">I", len(jpeg)) + jpeg, send)
                counts.sent += 1
                counts.bytes += len(jpeg)
        except TimeoutError:
            problem = "the connection takes no bytes"
    with suppress(TimeoutError):
        await _send_chunks(struct.pack(">I", 0), send, end=True)
    send(_reply_done(counts.sent, len(last.sequences), problem, last.stream))


async def _send_live(context: Context, camera: StreamedCamera, command: ShortStream, send: SendReply) -> None:
    """Sends the next pictures, as to any viewer."""
    settings = context.mjpeg
    long, quality = command.exposure == "long", command.quality or settings.quality
    variant = Variant(settings.fps, settings.width, quality, gray=False, stack=1, long=long)
    viewer = ShortStreamViewer()
    try:
        camera.fanout.join(variant, viewer)
    except TooManyViewers as error:
        send(Reply(ok=False, status="busy", text=f"ERROR: {error}"))
        return
    frames_before = camera.feed.status.frames
    try:
        with context.viewers.track("short", camera.name, "control", str(variant), viewer.counts):
            problem = await _send_pictures(viewer, command.count, send)
    finally:
        camera.fanout.leave(variant, viewer)
    frames = 0 if long else camera.feed.status.frames - frames_before
    sent = viewer.counts.sent
    send(_reply_done(sent, max(sent + viewer.counts.skipped, frames), problem, "main"))


class LastFrames(Struct, frozen=True):
    """The last frames that a ring holds."""

    reader: RingReader | None
    sequences: range
    stream: str
    """The ring: main, or lores for the small frames."""
    encoder: JpegEncoder = msgspec.field(default_factory=JpegEncoder)


def find_last_frames(settings: Settings, camera: str, count: int) -> LastFrames:
    """Returns the last `count` frames, of the full-size ring as far as it goes, else of the small one."""
    best = LastFrames(None, range(0), "main")
    for stream in ("main", "lores"):
        with suppress(RingError, OSError):
            reader = RingReader.open(settings.ring_name(camera, stream))
            sequences = range(0) if reader.retired else reader.last(count)
            if len(sequences) > len(best.sequences):
                best = LastFrames(reader, sequences, stream)
    return best


def _encode_frame(last: LastFrames, sequence: int, variant: Variant) -> bytes | None:
    """Returns the JPEG of a frame; None where it was overwritten."""
    if last.reader is None:
        return None
    with suppress(FrameOverwritten):
        frame = last.reader.copy(sequence)
        return encode_picture(last.encoder, frame.payload, frame, variant, None).jpeg
    return None


def _reply_done(sent: int, available: int, problem: str, stream: str) -> Reply:
    figures = {"sent": sent, "skipped": max(0, available - sent), "available": available}
    text = "STREAM_DONE: " + ", ".join(f"{name}={value}" for name, value in figures.items())
    text += ", from the small ring" * (stream == "lores")
    return Reply(ok=not problem, status="stream_done", text=text, data={**figures, "ring": stream, "problem": problem})


async def _send_pictures(viewer: ShortStreamViewer, count: int, send: SendReply) -> str:
    """Sends `count` pictures. Returns: the problem that ended the stream; empty: none."""
    problem = ""
    try:
        while viewer.counts.sent < count:
            picture = await viewer.next_picture(FRAME_S)
            if not picture.signal:
                raise TimeoutError(f"no signal{picture.reason and f': {picture.reason}'}")
            await _send_chunks(struct.pack(">I", len(picture.jpeg)) + picture.jpeg, send)
            viewer.counts.sent += 1
            viewer.counts.bytes += len(picture.jpeg)
    except TimeoutError as error:
        problem = str(error) or "no picture came"
    with suppress(TimeoutError):  # the connection takes no bytes any more: the hub is away
        await _send_chunks(struct.pack(">I", 0), send, end=True)
    return problem


async def _send_chunks(data: bytes, send: SendReply, *, end: bool = False) -> None:
    """Queues bytes in chunks, and waits while the queue is full. Raises: TimeoutError."""
    for at in range(0, len(data), CHUNK_BYTES_MAX):
        chunk = Chunk(data=data[at : at + CHUNK_BYTES_MAX], end=end)
        async with asyncio.timeout(BACKLOG_S):
            while not send(chunk):  # noqa: ASYNC110 - the queue is another thread's, which sets no event
                await asyncio.sleep(0.02)
