"""Frames of two cameras that were captured at (nearly) the same instant."""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator
from typing import NamedTuple

from shm_ring.attach import AttachedRing, HeldFrame
from shm_ring.errors import FrameOverwritten, RingNotReady
from shm_ring.frame import Frame
from shm_ring.reader import RingReader

PATIENCE_S = 0.5  # a frame of the first camera waits this long for its partner, which may be published later


class Pair(NamedTuple):
    """Two frames and how far apart in time they are."""

    first: Frame
    second: Frame
    error_ns: int
    """Captured second - captured first, nanoseconds."""


def nearest(reader: RingReader, captured_ns: int) -> int | None:
    """Return the sequence captured nearest to an instant; None before the first frame."""
    every = range(reader.oldest, reader.head)
    if not every:
        return None
    after = bisect.bisect_left(every, captured_ns, key=reader.captured_ns)
    candidates = every[max(0, after - 1) : after + 1]
    return min(candidates, key=lambda sequence: abs(reader.captured_ns(sequence) - captured_ns))


def pairs(first: AttachedRing, second: AttachedRing, tolerance_s: float = 0.02) -> Iterator[Pair]:
    """Yield each frame of `first` with the frame of `second` nearest in time; frames without a partner are left out.

    Waits for a later frame of `second` before it decides, so the nearest is really the nearest.
    """
    tolerance_ns = round(tolerance_s * 1e9)
    for frame in first.follow(newest_first=False):
        partner = _partner(second, frame.captured_ns)
        if partner is not None and abs(partner.captured_ns - frame.captured_ns) <= tolerance_ns:
            yield Pair(frame, partner, partner.captured_ns - frame.captured_ns)


def _partner(ring: AttachedRing, captured_ns: int) -> HeldFrame | None:
    """Find the frame nearest to an instant, once one captured after it is there or patience is at an end."""
    try:
        reader = ring.reader()
        deadline_s = time.monotonic() + PATIENCE_S
        while (newest := reader.latest()) is None or reader.captured_ns(newest) < captured_ns:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or reader.retired:
                break
            reader.wait(reader.first_sequence if newest is None else newest + 1, left_s)
        sequence = nearest(reader, captured_ns)
        return None if sequence is None else ring.held(reader, sequence)
    except (RingNotReady, FrameOverwritten):
        return None  # the other camera has gone, or restarts: no partner now
