"""Which frames of a span are taken: the sharpest, the newest or evenly spread ones. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shm_ring import Flags, FrameMeta


@dataclass(frozen=True, slots=True)
class Candidate:
    """A frame that might be taken."""

    sequence: int
    """Its place in the ring."""
    meta: FrameMeta
    """What the ring tells of it."""


def chosen(
    candidates: Sequence[Candidate], count: int, how: str, sharpness: Callable[[int], float | None]
) -> list[Candidate]:
    """At most `count` candidates (0: all), in order of time.

    Frames taken while the camera's controls moved are left out unless there are no others. `how`: sharpest, newest or
    spread; `sharpness` maps a frame id to its score, None where there is none (then newer frames win).
    """
    settled = [one for one in candidates if not one.meta.flags & Flags.SETTLING] or list(candidates)
    if not count or len(settled) <= count:
        return settled
    match how:
        case "spread":
            step = (len(settled) - 1) / max(1, count - 1)
            return [settled[round(number * step)] for number in range(count)]
        case "sharpest":
            scores = {one.sequence: sharpness(one.meta.frame_id) or 0.0 for one in settled}
            best = sorted(settled, key=lambda one: (scores[one.sequence], one.sequence))[-count:]
            return sorted(best, key=lambda one: one.sequence)
    return settled[-count:]


def already_gone(span_start_ns: int, first: FrameMeta | None, period_ns: float) -> int:
    """About how many frames of the span the ring held once, but no longer when the command came.

    `first`: the oldest frame that is still there. Frames from before the camera's first frame never were.
    """
    if first is None or period_ns <= 0 or first.captured_ns - span_start_ns < period_ns:
        return 0
    return min(first.frame_id, round((first.captured_ns - span_start_ns) / period_ns))


def period_ns(metas: Sequence[FrameMeta]) -> float:
    """Time from frame to frame as the span shows it; 0 where it cannot be told."""
    if len(metas) > 1:
        return (metas[-1].captured_ns - metas[0].captured_ns) / (len(metas) - 1)
    return metas[0].frame_duration_us * 1000.0 if metas else 0.0
