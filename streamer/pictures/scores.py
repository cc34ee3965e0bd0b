"""The analyzer's newest word on a camera, from its scores ring: dark score, night, motion; None while it is away."""

from __future__ import annotations

import logging

from shm_ring import RingMismatch
from shm_ring.records.scores import Score, Scores
from shmcam.runtime.clock import now_ns

log = logging.getLogger(__name__)

FRESH_NS = 15_000_000_000
"""An older word is not passed on: an old score shown as if it were new would mislead. Two night exposures and a bit."""

LOOK_NS = 250_000_000
"""How often a ring of scores that is not there is looked for; each look costs as much as a dozen pictures' headers."""


class ScoreReader:
    """Reads the newest record; used by one thread."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._refused = False
        self._look_ns = 0
        """When to look again, sensor clock."""

    def newest(self) -> Score | None:
        """Return the newest record; None where no analyzer runs."""
        now = now_ns()
        if now < self._look_ns:
            return None
        try:
            score = self._scores.latest()
        except RingMismatch as problem:
            if not self._refused:
                log.warning("scores cannot be read, pictures go without: %s", problem)
            self._refused = True
            return None
        if score is None:
            self._look_ns = now + LOOK_NS
            return None
        return score if now - score.captured_ns < FRESH_NS else None
