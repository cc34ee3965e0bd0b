"""`shortstream [n]`: n pictures on the control connection, each after its length, closed by a length of 0.

    u32 big-endian length, JPEG, … , u32 0, then the text STREAM_DONE: sent=…, skipped=…, available=…

The bytes travel in chunks that the hub passes on as they are.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from shmcam.control.messages import CHUNK_BYTES_MAX, Chunk, Reply, ShortStream
from streamer.http.context import Context, StreamedCamera
from streamer.monitoring.viewers import Sent
from streamer.pictures.fanout import TooManyViewers
from streamer.pictures.jpeg_picture import JpegPicture
from streamer.pictures.variant import Variant

FRAME_S = 15.0
"""Without a picture for so long the stream ends; longer than two of the longest night exposures."""

BACKLOG_S = 10.0
"""A peer that takes nothing for so long has lost its stream."""

Answer = Callable[[Any], bool]


class Newest:
    """A viewer who is asked for the next picture when there is time for it."""

    def __init__(self) -> None:
        self.counts = Sent()
        self._picture: JpegPicture | None = None
        self._came = asyncio.Event()

    def offer(self, picture: JpegPicture) -> None:
        """Keep it, in place of one that was not fetched."""
        self.counts.skipped += self._picture is not None
        self._picture = picture
        self._came.set()

    async def next(self, wait_s: float) -> JpegPicture:
        """Wait for a picture not seen before. Raises: TimeoutError."""
        async with asyncio.timeout(wait_s):
            await self._came.wait()
        self._came.clear()
        picture, self._picture = self._picture, None
        if picture is None:
            raise TimeoutError("woken without a picture")
        return picture


async def short_stream(context: Context, camera: StreamedCamera, wish: ShortStream, answer: Answer) -> None:
    """Send what was asked for, then say how it went."""
    settings = context.mjpeg
    long, quality = wish.exposure == "long", wish.quality or settings.quality
    variant = Variant(settings.fps, settings.width, quality, gray=False, stack=1, long=long)
    viewer = Newest()
    try:
        camera.fanout.join(variant, viewer)
    except TooManyViewers as error:
        answer(Reply(ok=False, status="busy", text=f"ERROR: {error}"))
        return
    begun = camera.feed.sight.frames
    try:
        with context.viewers.track("short", camera.name, "control", str(variant), viewer.counts):
            problem = await _pictures(viewer, wish.count, answer)
    finally:
        camera.fanout.leave(variant, viewer)
    came = 0 if long else camera.feed.sight.frames - begun
    available = max(viewer.counts.sent + viewer.counts.skipped, came)
    figures = {"sent": viewer.counts.sent, "skipped": max(0, available - viewer.counts.sent), "available": available}
    text = "STREAM_DONE: " + ", ".join(f"{name}={value}" for name, value in figures.items())
    answer(Reply(ok=not problem, status="stream_done", text=text, data={**figures, "problem": problem}))


async def _pictures(viewer: Newest, count: int, answer: Answer) -> str:
    """Send `count` pictures. Returns: what went wrong; empty: nothing."""
    problem = ""
    try:
        while viewer.counts.sent < count:
            picture = await viewer.next(FRAME_S)
            if not picture.signal:
                raise TimeoutError(f"no signal{picture.reason and f': {picture.reason}'}")
            await _send(struct.pack(">I", len(picture.jpeg)) + picture.jpeg, answer)
            viewer.counts.sent += 1
            viewer.counts.bytes += len(picture.jpeg)
    except TimeoutError as error:
        problem = str(error) or "no picture came"
    with suppress(TimeoutError):  # nobody takes it any more: the hub is away
        await _send(struct.pack(">I", 0), answer, end=True)
    return problem


async def _send(data: bytes, answer: Answer, *, end: bool = False) -> None:
    """Queue bytes in chunks, waiting while the backlog is full. Raises: TimeoutError."""
    for at in range(0, len(data), CHUNK_BYTES_MAX):
        chunk = Chunk(data=data[at : at + CHUNK_BYTES_MAX], end=end)
        async with asyncio.timeout(BACKLOG_S):
            while not answer(chunk):  # noqa: ASYNC110 - the backlog is another thread's; it tells nobody
                await asyncio.sleep(0.02)
