"""One camera's ring as the exporter uses it: frames by time, copied and verified. Used by one thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

from exporter.choice import Candidate, Held
from service.settings import Settings
from service.stop import Stop
from shm_ring import Frame, FrameOverwritten, LiveRing, RingNotReady, RingReader
from shm_ring.scores import Score, Scores

LOOK_S = 0.1
"""Seconds between looks at `stop` while waiting for a frame."""


class Camera:
    """Frames and scores of one camera; a context manager. While there is no ring, there are no frames."""

    def __init__(self, name: str, settings: Settings, stop: Stop) -> None:
        self.name = name
        self._stop = stop
        self._ring = LiveRing(settings.ring_name(name), stop)
        self._scores = Scores(settings.ring_name(name, "scores"), stop)

    def __enter__(self) -> Camera:
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

    def held(self) -> Held | None:
        """What the ring holds now; None without frames."""
        reader = self.reader()
        known = range(0) if reader is None else reader.last(reader.slots)
        for oldest in known[:3]:  # the oldest of a small ring may go while we look
            with suppress(FrameOverwritten):
                first, last = reader.meta(oldest), reader.meta(known[-1])  # type: ignore[union-attr]
                return Held(known[-1] - oldest + 1, first, last)
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
