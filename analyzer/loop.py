"""What the analyzer does all day: look at the newest frame, publish its record, tell what happened, obey."""

from __future__ import annotations

import logging
import time

from analyzer import answers
from analyzer.look import look_at
from analyzer.orders import obey
from analyzer.parts import Parts, tell, tell_saved
from analyzer.watcher import Seen
from service.stop import Stop
from shm_ring import FrameOverwritten, LiveRing, RingError, RingReader

log = logging.getLogger(__name__)

BEAT_S = 0.25
"""Heartbeats leave once a second; offering one more often than this is wasted work at 120 fps."""
IDLE_S = 0.5


def watch(ring: LiveRing, parts: Parts, stop: Stop) -> None:
    """Until stop is requested. Frames that came in between while one was looked at are skipped and counted."""
    frames, rate = 0, Rate()
    for found in ring.sequences(newest_first=True, idle_s=IDLE_S):
        obey(parts)
        parts.plugins.tend()
        if found is None:
            tell_saved(parts.daybook.tend(time.time_ns()), parts)
            parts.control.beat("waiting", "no frames", fps=0.0, lag=0, **answers.figures(parts.watcher))
            continue
        seen = take(found[0], found[1], parts)
        if seen is None:
            continue
        frames += 1
        tell(seen, parts)
        if rate.count():
            lag = max(0, found[0].head - 1 - found[1])
            parts.control.beat(
                fps=rate.fps,
                lag=lag,
                laps=ring.laps,
                skipped=ring.skipped,
                plugins=parts.plugins.states(),
                hooks=parts.hooks.state,
                **answers.figures(parts.watcher),
            )
    log.info("stopped frames=%d skipped=%d night=%s", frames, ring.skipped, parts.watcher.night)


def take(reader: RingReader, sequence: int, parts: Parts) -> Seen | None:
    """Look at one frame and publish its record; None where it was overwritten meanwhile, or is no picture."""
    try:
        with reader.borrow(sequence) as frame:
            look = look_at(frame, parts.daybook.column_due(frame.captured_ns))
    except FrameOverwritten:
        return None
    except (RingError, ValueError) as problem:  # a payload that is not what its header says
        log.warning("frame not understood sequence=%d: %s", sequence, problem)
        return None
    seen = parts.watcher.observe(look)
    parts.scorer.publish(seen, parts.watcher, parts.plugins.results)
    return seen


class Rate:
    """Frames per second, and when a heartbeat is due."""

    def __init__(self) -> None:
        self.fps = 0.0
        self._frames = 0
        self._since_s = self._beat_s = time.monotonic()

    def count(self) -> bool:
        """Count a frame; returns whether BEAT_S have passed."""
        self._frames += 1
        now_s = time.monotonic()
        if now_s - self._since_s >= 1.0:
            self.fps, self._frames, self._since_s = self._frames / (now_s - self._since_s), 0, now_s
        due = now_s - self._beat_s >= BEAT_S
        self._beat_s = now_s if due else self._beat_s
        return due
