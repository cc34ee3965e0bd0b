"""One camera's ring as the exporter uses it: frames by time, copied and verified. Used by one thread.

What the ring holds of the moment that is wanted, and which of it is taken, and how. Pure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from exporter.settings import ExportSettings
from exporter.stacking.stack import METHODS, SEPARATE
from shm_ring import Flags, Frame, FrameMeta, FrameOverwritten, LiveRing, RingNotReady, RingReader
from shm_ring.records.scores import Score, Scores
from shmcam.config.settings import Settings
from shmcam.control.messages import PastStack
from shmcam.runtime.stop import Stop

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
class RingContents:
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


LOOK_S = 0.1
"""Seconds between looks at `stop` while waiting for a frame."""


class CameraFrames:
    """Frames and scores of one camera; a context manager. While there is no ring, there are no frames."""

    def __init__(self, name: str, settings: Settings, stop: Stop) -> None:
        self.name = name
        self._stop = stop
        self._ring = LiveRing(settings.ring_name(name), stop)
        self._scores = Scores(settings.ring_name(name, "scores"), stop)

    def __enter__(self) -> CameraFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ring.close()
        self._scores.close()

    def reader(self) -> RingReader | None:
        """The current ring, or None."""
        with suppress(RingNotReady):
            reader = self._ring.reader()
            if reader.retired:  # looked at for every command: a picture of an ended ring would be an old one
                self._ring.close()
                reader = self._ring.reader()
            return reader
        return None

    def let_go_if_retired(self) -> None:
        """Give the memory of ended rings back, for commands may be hours apart; from any thread."""
        self._ring.let_go_if_retired()
        self._scores.let_go_if_retired()

    def held(self) -> RingContents | None:
        """What the ring holds now; None without frames."""
        reader = self.reader()
        known = range(0) if reader is None else reader.last(reader.slots)
        for oldest in known[:3]:  # the oldest of a small ring may go while we look
            with suppress(FrameOverwritten):
                first, last = reader.meta(oldest), reader.meta(known[-1])  # type: ignore[union-attr]
                return RingContents(known[-1] - oldest + 1, first, last)
        return None

    def at(self, captured_ns: int) -> Frame | None:
        """The last frame captured at or before this instant, else the first after it; None without frames."""
        reader = self.reader()
        if reader is None:
            return None
        for _ in range(3):  # the oldest frame of a small ring may go while we look; the newest stays
            known = reader.window(-1 << 62, captured_ns) or reader.last(reader.slots)[:1]
            if not known:
                return None
            with suppress(FrameOverwritten):
                return reader.copy(known[-1])
        return None

    def nearest(self, captured_ns: int) -> Frame | None:
        """The frame closest in time to this instant; None without frames."""
        reader = self.reader()
        if reader is None:
            return None
        around = [*reader.window(-1 << 62, captured_ns)[-1:], *reader.window(captured_ns, 1 << 62)[:1]]
        copies = []
        for sequence in around:
            with suppress(FrameOverwritten):
                copies.append(reader.copy(sequence))
        return min(copies, key=lambda frame: abs(frame.captured_ns - captured_ns), default=None)

    def wait_past(self, captured_ns: int, timeout_s: float) -> bool:
        """Wait until a frame captured after this instant is there. Returns: whether it is."""
        deadline_s = time.monotonic() + timeout_s
        while not self._stop.requested:
            reader = self.reader()
            newest = None if reader is None else reader.latest()
            if reader is not None and newest is not None:
                with suppress(FrameOverwritten):
                    if reader.meta(newest).captured_ns > captured_ns:
                        return True
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            if reader is None:
                self._stop.wait(min(LOOK_S, left_s))
            else:
                reader.wait(reader.head, min(LOOK_S, left_s))
        return False

    def span(self, start_ns: int, end_ns: int) -> list[Candidate]:
        """What the ring holds of this span, oldest first."""
        reader = self.reader()
        return [] if reader is None else list(_candidates(reader, reader.window(start_ns, end_ns)))

    def copies(self, candidates: list[Candidate]) -> Iterator[Frame]:
        """Copies of these frames, one at a time; frames that were overwritten meanwhile are left out."""
        reader = self.reader()
        for candidate in candidates if reader is not None else ():
            with suppress(FrameOverwritten, RingNotReady):
                frame = reader.copy(candidate.sequence)  # type: ignore[union-attr]
                if frame.frame_id == candidate.meta.frame_id:  # not so in a ring that began anew
                    yield frame

    def score(self, frame_id: int) -> Score | None:
        """What the analyzer said about this frame; None without an analyzer, or if it never saw it."""
        found = self._scores.nearest(frame_id)
        return found if found is not None and abs(found.frame_id - frame_id) <= SCORE_FRAMES else None


SCORE_FRAMES = 30
"""Frames; the analyzer may skip some, and brightness does not change in a second."""


def _candidates(reader: RingReader, sequences: range) -> Iterator[Candidate]:
    for sequence in sequences:
        with suppress(FrameOverwritten):
            yield Candidate(sequence, reader.meta(sequence))
