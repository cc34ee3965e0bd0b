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
IDLE_S = 0.1
"""Between long night frames commands are answered this late at most."""
SILENCE_S = 5.0
"""No frame for so long (and three exposures) is worth telling."""


def watch(ring: LiveRing, parts: Parts, stop: Stop) -> None:
    """Until stop is requested. Frames that came in between while one was looked at are skipped and counted."""
    frames, pulse = 0, Pulse()
    for found in ring.sequences(newest_first=True, idle_s=IDLE_S):
        obey(parts)
        parts.plugins.tend()
        if found is None:
            tell_saved(parts.daybook.tend(time.time_ns()), parts)
            beat(ring, parts, pulse, lag=0)
            continue
        seen = take(found[0], found[1], parts)
        if seen is None:
            continue
        frames += 1
        pulse.count(seen.look.meta.exposure_us)
        tell(seen, parts)
        beat(ring, parts, pulse, lag=max(0, found[0].head - 1 - found[1]))
    log.info("stopped frames=%d skipped=%d night=%s", frames, ring.skipped, parts.watcher.night)


def beat(ring: LiveRing, parts: Parts, pulse: Pulse, lag: int) -> None:
    """Say that the loop turns, a few times a second."""
    if not pulse.due():
        return
    parts.control.beat(
        "waiting" if pulse.silent else "running",
        "no frames" if pulse.silent else "",
        fps=pulse.fps,
        lag=lag,
        laps=ring.laps,
        skipped=ring.skipped,
        plugins=parts.plugins.states(),
        hooks=parts.hooks.state,
        **answers.figures(parts.watcher),
    )


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


class Pulse:
    """Frames per second, silence, and when a heartbeat is due."""

    def __init__(self) -> None:
        self.fps = 0.0
        self._frames = 0
        self._since_s = self._beat_s = time.monotonic()
        self._last_s = float("-inf")
        self._patience_s, self._window_s = SILENCE_S, 1.0

    def count(self, exposure_us: int) -> None:
        """Count a frame."""
        self._frames += 1
        self._last_s = time.monotonic()
        self._window_s = max(1.0, 3e-6 * exposure_us)
        self._patience_s = max(SILENCE_S, self._window_s)

    @property
    def silent(self) -> bool:
        """No frame for longer than the last one's exposure explains."""
        return time.monotonic() - self._last_s > self._patience_s

    def due(self) -> bool:
        """Whether BEAT_S have passed since it last said so; brings `fps` up to date."""
        now_s = time.monotonic()
        if now_s - self._since_s >= self._window_s:
            self.fps, self._frames, self._since_s = self._frames / (now_s - self._since_s), 0, now_s
        due = now_s - self._beat_s >= BEAT_S
        self._beat_s = now_s if due else self._beat_s
        return due
