"""The way in for any program: `attach("cam0")`, then `follow()`; and `pairs()` of two cameras.

    from shm_ring import attach
    with attach("cam0") as ring:
        for frame in ring.follow():
            print(frame.frame_id, frame.bgr.shape)

Nothing that a program does with its frames can disturb the camera or another program.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from shm_ring.errors import FrameOverwritten, RingError, RingNotReady
from shm_ring.frame import Frame, Pixels
from shm_ring.layout import segment_name
from shm_ring.live_ring import LOOK_S, LiveRing, StopSignal
from shm_ring.reader import RingReader


class HeldFrame(Frame):
    """A frame to hold for any time: its pixels are copied and verified when they are first asked for.

    Raises FrameOverwritten at that moment if the writer has come round, so a view never shows another frame.
    """

    __slots__ = ("_bgr",)

    @property
    def payload(self) -> Pixels:
        """The used bytes, 1-D uint8, an own copy."""
        self._copy_pixels()
        return super().payload

    def _copy_pixels(self) -> None:
        if self._memory is not None:
            owned = Frame(self._memory, self.sequence, self._header).copy()
            self._payload, self._memory = owned.payload, None  # from here on a plain owned frame

    @property
    def planes(self) -> tuple[Pixels, ...]:
        """Views of the own copy's planes."""
        self._copy_pixels()
        return super().planes

    @property
    def bgr(self) -> Pixels:
        """A converted copy, (height, width, 3) uint8, verified; the same array each time it is asked for."""
        if not hasattr(self, "_bgr"):  # straight from the ring, without copying the payload first
            self._bgr = Frame(self._memory, self.sequence, self._header, self._payload).bgr
        return self._bgr


class AttachedRing(LiveRing):
    """One camera's stream across restarts of its writer; a context manager."""

    def follow(
        self, *, newest_first: bool = True, max_fps: float | None = None, start: str | int = "new"
    ) -> Iterator[Frame]:
        """Yields frames for ever, waiting for each; survives restarts of the camera.

        `newest_first`: a slow loop gets the newest frame and skips; False: in order, none skipped unless the loop falls
        a whole ring behind. `max_fps`: at most so many a second, the newest each time.
        """
        period_s = 1 / max_fps if max_fps else 0.0
        due_s = time.monotonic()
        for found in self.sequences(newest_first=newest_first or bool(period_s), start=start):
            frame = None if found is None else self.hold(*found)
            if frame is None:
                continue
            yield frame
            del frame, found  # an ended ring's memory goes while we wait for the next one
            if period_s:
                now_s = time.monotonic()
                due_s = max(due_s + period_s, now_s)
                self._pause(due_s - now_s)

    async def afollow(self, *, start: str | int = "new") -> AsyncIterator[Frame]:
        """Yields the newest frames in an asyncio program; one thread of its own sleeps in the futex.

        Leaving the loop ends the thread within LOOK_S.
        """
        loop, ready, done = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        newest: list[tuple[RingReader, int]] = []
        failed: list[RingError] = []

        def deliver(found: tuple[RingReader, int]) -> None:
            newest[:] = [found]  # a slow task gets the newest only: nothing piles up
            ready.set()

        def watch() -> None:
            try:
                for found in self.sequences(newest_first=True, start=start, idle_s=LOOK_S):
                    if done.is_set() or loop.is_closed():
                        return
                    if found is not None:
                        with contextlib.suppress(RuntimeError):  # the loop was closed this very moment
                            loop.call_soon_threadsafe(deliver, found)
            except RingError as error:
                failed.append(error)

        thread = threading.Thread(target=watch, name=f"ring {self.name}", daemon=True)
        thread.start()
        try:
            while thread.is_alive() or newest:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ready.wait(), 2 * LOOK_S)
                ready.clear()
                frame = self.hold(*newest.pop()) if newest else None
                if frame is not None:
                    yield frame
                del frame  # an ended ring's memory goes while we wait for the next one
            if failed:
                raise failed[0]
        finally:
            done.set()

    def hold(self, reader: RingReader, sequence: int) -> HeldFrame | None:
        """Returns a frame to hold; None when it is gone already (counted in reader.overwritten)."""
        try:
            frame = reader.borrow(sequence)
        except FrameOverwritten:
            return None
        return HeldFrame(reader, sequence, frame._header)

    held = hold
    """Its former name."""

    def latest(self) -> Frame | None:
        """Returns the newest frame now; None before the first. Raises: RingNotReady while there is no ring."""
        reader = self.reader()
        sequence = reader.latest()
        return None if sequence is None else self.hold(reader, sequence)

    def __enter__(self) -> AttachedRing:
        return self


def attach(
    camera: str, stream: str = "main", prefix: str = "shmcam", timeout_s: float = 10.0, stop: StopSignal | None = None
) -> AttachedRing:
    """Attaches to a camera's ring, waiting up to `timeout_s` for it.

    Raises: RingNotReady when it does not come, RingMismatch when this release cannot read it.
    """
    ring = AttachedRing(segment_name(prefix, camera, stream), stop)
    ring.wait_ready(timeout_s)
    return ring


PARTNER_WAIT_S = 0.5  # a frame of the first camera waits this long for its partner, which may be published later


class Pair(NamedTuple):
    """Two frames and how far apart in time they are."""

    first: Frame
    second: Frame
    error_ns: int
    """Captured second - captured first, nanoseconds."""


def find_nearest(reader: RingReader, captured_ns: int) -> int | None:
    """Returns the sequence captured nearest to an instant; None before the first frame."""
    every = range(reader.oldest, reader.head)
    if not every:
        return None
    after = bisect.bisect_left(every, captured_ns, key=reader.captured_ns)
    candidates = every[max(0, after - 1) : after + 1]
    return min(candidates, key=lambda sequence: abs(reader.captured_ns(sequence) - captured_ns))


def pairs(first: AttachedRing, second: AttachedRing, tolerance_s: float = 0.02) -> Iterator[Pair]:
    """Yields each frame of `first` with the frame of `second` nearest in time; frames without a partner are left out.

    Waits for a later frame of `second` before it decides, so the nearest is really the nearest.
    """
    tolerance_ns = round(tolerance_s * 1e9)
    for frame in first.follow(newest_first=False):
        partner = _find_partner(second, frame.captured_ns)
        if partner is not None and abs(partner.captured_ns - frame.captured_ns) <= tolerance_ns:
            yield Pair(frame, partner, partner.captured_ns - frame.captured_ns)


def _find_partner(ring: AttachedRing, captured_ns: int) -> HeldFrame | None:
    """Finds the frame nearest to an instant, once one captured after it is there or PARTNER_WAIT_S has passed."""
    try:
        reader = ring.reader()
        deadline_s = time.monotonic() + PARTNER_WAIT_S
        while (newest := reader.latest()) is None or reader.captured_ns(newest) < captured_ns:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or reader.retired:
                break
            reader.wait(reader.first_sequence if newest is None else newest + 1, left_s)
        sequence = find_nearest(reader, captured_ns)
        return None if sequence is None else ring.hold(reader, sequence)
    except (RingNotReady, FrameOverwritten):
        return None  # the other camera has gone, or restarts: no partner now
