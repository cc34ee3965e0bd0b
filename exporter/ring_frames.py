"""Finds frames in a camera's ring by their time, copies them verified, and chooses among those of a span.

What is chosen is decided by pure functions of the frames' metadata; only `CameraFrames` reads the ring, in one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType

from msgspec import Struct

from exporter.settings import ExportSettings
from exporter.stacking.stack import METHODS, SEPARATE
from shm_ring import Flags, Frame, FrameMeta, FrameOverwritten, LiveRing, RingMismatch, RingNotReady, RingReader
from shm_ring.records.scores import Score, Scores
from shmcam.config.settings import Settings
from shmcam.control.messages import PastStack
from shmcam.runtime.stop import Stop

LONG = "long"
"""pastStack's method that saves the virtual long exposure."""
POLL_S = 0.1
"""Seconds between two checks of `stop` while waiting for a frame."""
LATE_FRAMES = 3
"""Frame times after which a camera that delivered nothing new is taken to be away."""
SAME_EXPOSURE = 1.5
"""The factor of exposure times gain within which frames fit into one stack: half a stop."""
SCORE_FRAMES = 30
"""The farthest frame whose score counts; the analyzer may skip some, and brightness does not change in a second."""


class Candidate(Struct, frozen=True):
    """A frame of the span that may be chosen."""

    sequence: int
    """The position in the ring."""
    meta: FrameMeta
    """The metadata as the ring holds them."""


class RingContents(Struct, frozen=True):
    """The frames that the ring holds at one moment."""

    frames: int
    """The number of frames."""
    first: FrameMeta
    """The oldest."""
    last: FrameMeta
    """The newest."""

    @property
    def period_ns(self) -> float:
        """The time from frame to frame; 0 where it is unknown."""
        return _period_ns_between(self.frames, self.first, self.last)

    def begins_after(self, target_ns: int) -> bool:
        """Tells whether this instant is earlier than every frame in the ring."""
        return self.first.captured_ns - target_ns > self.period_ns

    def count_overwritten_since(self, target_ns: int) -> int:
        """Estimates how many frames from this instant on have been overwritten."""
        return count_overwritten(target_ns, self.first, self.period_ns)


def span_of(command: PastStack, own: ExportSettings, received_ns: int) -> tuple[int, int]:
    """Returns start and end of the sensor time that a pastStack asks for."""
    before_s = own.save_before_s if command.before_s < 0 else command.before_s
    after_s = own.save_after_s if command.after_s < 0 else command.after_s
    return received_ns - round(before_s * 1e9), received_ns + round(after_s * 1e9)


def method_of(command: PastStack, own: ExportSettings, candidates: Sequence[Candidate]) -> str:
    """Returns the method that makes pictures of these frames. Raises: ValueError."""
    if command.method and command.method not in (*METHODS, SEPARATE, LONG):
        raise ValueError(f"method {command.method!r}: must be one of {', '.join((*METHODS, SEPARATE, LONG))}")
    night = bool(candidates[-1].meta.flags & Flags.NIGHT)
    stack = own.stack_dark_frames and (night or own.stack_bright_frames)
    return command.method or (own.stack_method if stack else SEPARATE)


def select_span(held: Sequence[Candidate], start_ns: int, least: int) -> list[Candidate]:
    """Returns the frames from `start_ns` on, and older ones until there are `least` that count.

    `held`: what the ring holds up to the end of the span, oldest first. Older frames are taken only while they are like
    the newest, of the same mode and exposure, and only if the camera still delivers: two seconds of the past hold a
    single frame at night, and a stack of one frame is none. `least` 0: the span as it is.
    """
    inside = [candidate for candidate in held if candidate.meta.captured_ns >= start_ns]
    missing = least - sum(not candidate.meta.flags & Flags.SETTLING for candidate in inside)
    if not held or missing <= 0 or _is_old(held[-1].meta, start_ns):
        return inside
    older: list[Candidate] = []
    for candidate in reversed(held[: len(held) - len(inside)]):
        if missing == 0 or not _is_alike(candidate.meta, held[-1].meta):
            break
        if not candidate.meta.flags & Flags.SETTLING:
            older.append(candidate)
            missing -= 1
    return older[::-1] + inside


def select_around(held: Sequence[Candidate], instant_ns: int, count: int) -> list[Candidate]:
    """Returns the `count` frames nearest to an instant, in order of time, that are of one mode and exposure.

    `held`: what the ring holds, oldest first. Empty where the camera no longer delivered then.
    """
    if not held or _is_old(held[-1].meta, instant_ns):
        return []

    def distance_ns(candidate: Candidate) -> int:
        return abs(candidate.meta.captured_ns - instant_ns)

    centre = min(held, key=distance_ns).meta
    alike = [candidate for candidate in held if _is_alike(candidate.meta, centre)]
    settled = [candidate for candidate in alike if not candidate.meta.flags & Flags.SETTLING] or alike
    return sorted(sorted(settled, key=distance_ns)[:count], key=lambda candidate: candidate.sequence)


def _is_old(newest: FrameMeta, start_ns: int) -> bool:
    """Tells whether the newest frame lies further before the span than its exposure explains: no camera delivers."""
    frame_us = max(newest.exposure_us, newest.frame_duration_us)
    return start_ns - newest.captured_ns > LATE_FRAMES * 1000 * frame_us


def _is_alike(old: FrameMeta, new: FrameMeta) -> bool:
    if (old.flags ^ new.flags) & Flags.NIGHT:
        return False
    products = [meta.exposure_us * meta.analogue_gain for meta in (old, new)]
    return 0 in products or max(products) <= SAME_EXPOSURE * min(products)


def choose_frames(
    candidates: Sequence[Candidate], count: int, how: str, sharpness: Callable[[int], float | None]
) -> list[Candidate]:
    """Returns at most `count` candidates (0: all), in order of time.

    Frames of the time when the camera's controls moved are left out unless there are no others. `how`: sharpest,
    newest, spread, or around, which in a span that a command names is sharpest. `sharpness` maps a frame id to
    its score, None where there is none (then newer frames win).
    """
    settled = [candidate for candidate in candidates if not candidate.meta.flags & Flags.SETTLING]
    settled = settled or list(candidates)
    if not count or len(settled) <= count:
        return settled
    match how:
        case "spread":
            step = (len(settled) - 1) / max(1, count - 1)
            return [settled[round(number * step)] for number in range(count)]
        case "sharpest" | "around":
            scores = {candidate.sequence: sharpness(candidate.meta.frame_id) or 0.0 for candidate in settled}
            best = sorted(settled, key=lambda candidate: (scores[candidate.sequence], candidate.sequence))[-count:]
            return sorted(best, key=lambda candidate: candidate.sequence)
    return settled[-count:]


def count_overwritten(span_start_ns: int, first: FrameMeta | None, period_ns: float) -> int:
    """Estimates how many frames of the span had been overwritten when the command came.

    `first`: the oldest frame in the ring. Before the camera's first frame there were none.
    """
    if first is None or period_ns <= 0 or first.captured_ns - span_start_ns < period_ns:
        return 0
    return min(first.frame_id, round((first.captured_ns - span_start_ns) / period_ns))


def period_ns_of(metas: Sequence[FrameMeta]) -> float:
    """Returns the mean time from frame to frame; 0 where it is unknown."""
    return _period_ns_between(len(metas), metas[0], metas[-1]) if metas else 0.0


def _period_ns_between(frames: int, first: FrameMeta, last: FrameMeta) -> float:
    if frames > 1:
        return (last.captured_ns - first.captured_ns) / (frames - 1)
    return first.frame_duration_us * 1000.0


class CameraFrames:
    """The frames and scores of one camera; a context manager. Without a ring there are no frames."""

    def __init__(self, name: str, settings: Settings, stop: Stop, stream: str = "main") -> None:
        """`stream`: main, or lores for the small frames."""
        self.name = name
        self.stream = stream
        self._small = CameraFrames(name, settings, stop, "lores") if stream == "main" else None
        self._stop = stop
        self._ring = LiveRing(settings.ring_name(name, stream), stop)
        self._scores = Scores(settings.ring_name(name, "scores"), stop)

    def __enter__(self) -> CameraFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ring.close()
        self._scores.close()
        if self._small is not None:
            self._small.__exit__(kind, error, trace)

    def reaching(self, captured_ns: int) -> CameraFrames:
        """Returns the frames to look for an instant among: the full-size ones as far as they go, else the small ones.

        [ring.downscale]: a short full-size ring and a long small one.
        """
        if self._small is None or ((own := self.read_contents()) and not own.begins_after(captured_ns)):
            return self
        small = self._small.read_contents()
        if small is None or (own is not None and own.first.captured_ns <= small.first.captured_ns):
            return self
        return self._small

    def open_reader(self) -> RingReader | None:
        """Returns a reader of the current ring; None without a ring."""
        with suppress(RingNotReady):
            reader = self._ring.reader()
            if reader.retired:  # checked for every command: the frames of a retired ring are old
                self._ring.close()
                reader = self._ring.reader()
            return reader
        return None

    def release_if_retired(self) -> None:
        """Releases the memory of retired rings, since commands may be hours apart; from any thread."""
        self._ring.release_if_retired()
        self._scores.release_if_retired()
        if self._small is not None:
            self._small.release_if_retired()

    def read_contents(self) -> RingContents | None:
        """Returns what the ring holds now; None without frames."""
        reader = self.open_reader()
        sequences = range(0) if reader is None else reader.last(reader.slots)
        for oldest in sequences[:3]:  # the oldest of a small ring may be overwritten meanwhile
            with suppress(FrameOverwritten):
                first, last = reader.meta(oldest), reader.meta(sequences[-1])  # type: ignore[union-attr]
                return RingContents(sequences[-1] - oldest + 1, first, last)
        return None

    def find_at(self, captured_ns: int) -> Frame | None:
        """Returns the last frame captured at or before this instant, else the first after it; None without frames."""
        reader = self.open_reader()
        if reader is None:
            return None
        for _ in range(3):  # the oldest frame of a small ring may be overwritten meanwhile; the newest stays
            sequences = reader.window(-1 << 62, captured_ns) or reader.last(reader.slots)[:1]
            if not sequences:
                return None
            with suppress(FrameOverwritten):
                return reader.copy(sequences[-1])
        return None

    def find_nearest(self, captured_ns: int) -> Frame | None:
        """Returns the frame closest in time to this instant; None without frames."""
        reader = self.open_reader()
        if reader is None:
            return None
        around = [*reader.window(-1 << 62, captured_ns)[-1:], *reader.window(captured_ns, 1 << 62)[:1]]
        copies = []
        for sequence in around:
            with suppress(FrameOverwritten):
                copies.append(reader.copy(sequence))
        return min(copies, key=lambda frame: abs(frame.captured_ns - captured_ns), default=None)

    def wait_for_frame_after(self, captured_ns: int, timeout_s: float) -> bool:
        """Waits for a frame captured after this instant. Returns: whether there is one."""
        deadline_s = time.monotonic() + timeout_s
        while not self._stop.requested:
            reader = self.open_reader()
            newest = None if reader is None else reader.latest()
            if reader is not None and newest is not None:
                with suppress(FrameOverwritten):
                    if reader.meta(newest).captured_ns > captured_ns:
                        return True
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            if reader is None:
                self._stop.wait(min(POLL_S, left_s))
            else:
                reader.wait(reader.head, min(POLL_S, left_s))
        return False

    def list_span(self, start_ns: int, end_ns: int) -> list[Candidate]:
        """Returns what the ring holds of this span, oldest first."""
        reader = self.open_reader()
        return [] if reader is None else list(_read_candidates(reader, reader.window(start_ns, end_ns)))

    def copy_frames(self, candidates: list[Candidate]) -> Iterator[Frame]:
        """Yields copies of these frames, one at a time; frames that were overwritten meanwhile are left out."""
        reader = self.open_reader()
        for candidate in candidates if reader is not None else ():
            with suppress(FrameOverwritten, RingNotReady):
                frame = reader.copy(candidate.sequence)  # type: ignore[union-attr]
                if frame.frame_id == candidate.meta.frame_id:  # another one in a new ring
                    yield frame

    def find_score(self, frame_id: int) -> Score | None:
        """Returns the analyzer's score of this frame; None without an analyzer, or where it skipped the frame."""
        score = None
        with suppress(RingMismatch):  # scores of another version cost no picture
            score = self._scores.nearest(frame_id)
        return score if score is not None and abs(score.frame_id - frame_id) <= SCORE_FRAMES else None


def _read_candidates(reader: RingReader, sequences: range) -> Iterator[Candidate]:
    for sequence in sequences:
        with suppress(FrameOverwritten):
            yield Candidate(sequence, reader.meta(sequence))
