"""Keeps the keogram in a thread of its own: its disk may be slow, full, or a NAS that does not answer.

Night and motion are decided meanwhile. While the disk is silent, samples wait here, up to a limit; then they are
missing in the keogram, and nowhere else.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from analyzer.frame_analyzer import FrameResult
from analyzer.keogram.daily_keogram import KeogramKeeper
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

JOBS_MAX = 300
"""Five minutes of samples: a NAS that starts again is back by then; a sample of 1080p keeps 40 kB."""
WAIT_S = 2.0
"""Longest wait for a job; a stop ends it at once."""

Job = Callable[[], Sequence[Path] | None]


class KeogramThread:
    """One KeogramKeeper and the thread that alone uses it; as a context manager it starts and ends it."""

    def __init__(self, keeper: KeogramKeeper, report_saved: Callable[[Sequence[Path]], None], stop: Stop) -> None:
        """`report_saved` is called in the thread with files that are safely on disk."""
        self._keeper, self._report_saved, self._stop = keeper, report_saved, stop
        self._jobs: queue.Queue[Job] = queue.Queue(JOBS_MAX)
        self._worker = Worker("keogram", self._run, stop, self._wake)
        self._left_out = 0

    def column_position(self, captured_ns: int) -> float | None:
        """Returns where to cut a strip from this frame; see KeogramKeeper."""
        return self._keeper.column_position(captured_ns)

    def add(self, result: FrameResult, night: bool) -> None:
        """Adds one frame, if a strip was cut from it."""
        if result.sample.column is not None:
            self.submit(lambda: self._keeper.add(result, night))

    def end_day_if_over(self, utc_ns: int) -> None:
        """Ends the day by the clock while no frames come."""
        if self._jobs.empty():  # else the thread is behind, and will be asked again
            self.submit(lambda: self._keeper.end_day_if_over(utc_ns))

    def draw(self, answer: Callable[[Sequence[Path], int, OSError | None], None]) -> bool:
        """Draws the day so far; `answer` is called in the thread. Returns: False if too many jobs wait."""

        def work() -> None:
            try:
                paths = self._keeper.draw()
            except OSError as problem:
                answer((), 0, problem)
            else:
                answer(paths, self._keeper.columns, None)

        return self.submit(work)

    def submit(self, job: Job) -> bool:
        """Queues work for the thread; the files that it returns are reported. Returns: False if too many jobs wait."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            if not self._left_out:
                log.warning("keogram: the disk does not answer, frames are left out")
            self._left_out += 1
            return False
        if self._left_out:
            log.info("keogram goes on left_out=%d", self._left_out)
            self._left_out = 0
        return True

    def __enter__(self) -> Self:
        self._worker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.__exit__(kind, problem, trace)

    def _wake(self) -> None:
        with suppress(queue.Full):  # then it does not wait
            self._jobs.put_nowait(lambda: None)

    def _run(self) -> None:
        with self._keeper:
            while not (self._stop.requested and self._jobs.empty()):
                try:
                    job = self._jobs.get(timeout=WAIT_S)
                except queue.Empty:
                    continue
                if paths := job():
                    self._report_saved(paths)
