"""Sends the frames of a ring as raw video or JPEG: each newest one as it comes, or at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction

from msgspec import Struct

from shm_ring import FrameDamaged, FrameOverwritten, LiveRing, RingCursor, RingNotReady, Spot
from shm_ring.formats import Geometry
from shm_ring.frame import Frame
from shmcam.cli.pipe.pipe_output import Part, PipeOutput
from shmcam.cli.pipe.pixels import Pixels, aspect_in, scale, shows_ring, y4m_header
from shmcam.runtime.stop import Stop

MISSED = (RingNotReady, FrameOverwritten, FrameDamaged)
"""There is no ring now, or the frame is gone: the next one will do."""

WAIT_S = 0.25
"""Longest wait for a frame between two looks whether the reader is still there."""


class PictureStream(Struct, frozen=True):
    """The pictures that are wanted of one ring."""

    ring: LiveRing
    encode: Callable[[Pixels], list[Part]]
    size: tuple[int, int] | None
    """Width and height; None: those of the first frame. Frames that differ later are scaled to them."""
    fps: Fraction | None
    """Frames a second, repeated or left out as needed; None: each newest frame, when it comes."""
    nominal_fps: Fraction
    """The rate that a header names if `fps` is None and the frames do not say theirs."""
    has_header: bool
    """True for y4m."""
    tell: Callable[[str], None]
    """Takes a line for a person."""


def send_pictures(stream: PictureStream, output: PipeOutput, stop: Stop) -> int:
    """Sends frames until stop is requested. Returns: their number. Raises: ReaderGone."""
    size = _begin(stream, output, stop)
    if size is None:
        return 0
    if stream.fps is None:
        return _send_newest(stream, size, output, stop)
    return _send_paced(stream, float(stream.fps), size, output, stop)


def _begin(stream: PictureStream, output: PipeOutput, stop: Stop) -> tuple[int, int] | None:
    """Waits for the first frame and writes the header. Returns: width and height; None when stop is requested."""
    told = False
    while not stop.requested:
        try:
            reader = stream.ring.reader()
            newest = reader.latest()
            if newest is not None:
                frame = reader.borrow(newest)
                form, meta = frame.picture_geometry, frame.meta
                size = stream.size or (form.width, form.height)
                fps = stream.fps or _rate_of(meta.frame_duration_us) or stream.nominal_fps
                if stream.has_header:
                    output.write([y4m_header(_in_size(form, size), fps)])
                stream.tell(f"{size[0]}x{size[1]}, {float(fps):g} frames/s, from {stream.ring.name}")
                return size
        except MISSED:
            pass
        if not told:
            stream.tell(f"waiting for frames in {stream.ring.name}")
            told = True
        output.check()
        stop.wait(WAIT_S)
    return None


def _rate_of(frame_duration_us: int) -> Fraction | None:
    return Fraction(1_000_000, frame_duration_us).limit_denominator(1001) if frame_duration_us > 0 else None


def _in_size(form: Geometry, size: tuple[int, int]) -> Geometry:
    return Geometry(
        form.pixel_format,
        *size,
        form.strides,
        form.offsets,
        form.color_space,
        form.color_range,
        aspect_in(form, size),
    )


def _send_newest(stream: PictureStream, size: tuple[int, int], output: PipeOutput, stop: Stop) -> int:
    count, cursor = 0, RingCursor(stream.ring, newest_first=True)
    if (reader := cursor.attach()) is not None and (newest := reader.latest()) is not None:
        cursor.position = newest  # it is there already; at night the next one may take seconds
    while not stop.requested:
        output.check()
        spot = cursor.step(WAIT_S)
        if spot is None:
            stop.wait(0.0 if cursor.slots else WAIT_S)  # without a ring nothing else waits
            continue
        cursor.position = spot.sequence + 1
        with suppress(*MISSED):
            count += output.write(*_encode(stream, spot, size))
    return count


def _send_paced(stream: PictureStream, fps: float, size: tuple[int, int], output: PipeOutput, stop: Stop) -> int:
    """Sends a frame at every tick of a steady clock: the newest one, the last one again if there is no newer."""
    count, kept, parts, borrow = 0, None, list[Part](), None
    due_s = time.monotonic()
    while not stop.requested:
        output.check()
        pause_s = due_s - time.monotonic()
        if pause_s > 0:
            stop.wait(min(pause_s, WAIT_S))
            continue
        try:
            reader = stream.ring.reader()
            spot = Spot(reader, reader.head - 1)
            if spot != kept or borrow is not None:  # what was made of a frame stays; what lies in the ring is lent anew
                parts, borrow = _encode(stream, spot, size)
                kept = spot
        except MISSED:
            if kept is not None:  # the ring has ended; its last frame is repeated, and its memory let go
                with suppress(*MISSED):
                    parts = [b"".join(_encode(stream, kept, size)[0])]
                kept = borrow = None
            if not parts:
                stop.wait(1 / fps)
                continue
        count += output.write(parts, borrow)
        due_s = max(due_s + 1 / fps, time.monotonic() - 1 / fps)  # a reader that was slow gets no burst afterwards
    return count


def _encode(stream: PictureStream, spot: Spot, size: tuple[int, int]) -> tuple[list[Part], Frame | None]:
    """Returns the bytes of a frame, and the frame if they lie in its ring. Raises: MISSED."""
    frame = spot.reader.borrow(spot.sequence)
    pixels = scale(frame, size)
    parts = stream.encode(pixels)
    if shows_ring(parts, pixels):
        return parts, frame
    frame.verify()
    return parts, None
