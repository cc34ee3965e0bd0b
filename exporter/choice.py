"""What the ring holds of the moment that is wanted, and which of it is taken, and how. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from control.messages import PastStack
from exporter.settings import ExportSettings
from exporter.stacking import METHODS, SEPARATE
from shm_ring import Flags, FrameMeta

LONG = "long"
"""pastStack's method that saves the virtual long exposure."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A frame that might be taken."""

    sequence: int
    """Its place in the ring."""
    meta: FrameMeta
    """What the ring tells of it."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the ring holds at one moment."""

    frames: int
    """How many."""
    first: FrameMeta
    """The oldest."""
    last: FrameMeta
    """The newest."""

    @property
    def period_ns(self) -> float:
        """Time from frame to frame; 0 where it cannot be told."""
        return _period_ns(self.frames, self.first, self.last)

    def lacks(self, wanted_ns: int) -> bool:
        """Whether this instant is earlier than anything that is there."""
        return self.first.captured_ns - wanted_ns > self.period_ns

    def gone_since(self, wanted_ns: int) -> int:
        """About how many frames from this instant on were there once, but no longer."""
        return already_gone(wanted_ns, self.first, self.period_ns)


def span(command: PastStack, own: ExportSettings, asked_ns: int) -> tuple[int, int]:
    """The span of sensor time a pastStack asks for."""
    before_s = own.save_before_s if command.before_s < 0 else command.before_s
    after_s = own.save_after_s if command.after_s < 0 else command.after_s
    return asked_ns - round(before_s * 1e9), asked_ns + round(after_s * 1e9)


def method_of(command: PastStack, own: ExportSettings, held: Sequence[Candidate]) -> str:
    """How to make pictures of these frames. Raises: ValueError."""
    if command.method and command.method not in (*METHODS, SEPARATE, LONG):
        raise ValueError(f"method {command.method!r}: must be one of {', '.join((*METHODS, SEPARATE, LONG))}")
    night = bool(held[-1].meta.flags & Flags.NIGHT)
    stack = own.stack_dark_frames if night else own.stack_bright_frames
    return command.method or (own.stack_method if stack else SEPARATE)


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
    return _period_ns(len(metas), metas[0], metas[-1]) if metas else 0.0


def _period_ns(frames: int, first: FrameMeta, last: FrameMeta) -> float:
    if frames > 1:
        return (last.captured_ns - first.captured_ns) / (frames - 1)
    return first.frame_duration_us * 1000.0
