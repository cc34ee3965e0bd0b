"""The analyzer's newest record of a camera (dark score, night, motion), read from its scores ring."""

from __future__ import annotations

import logging

from shm_ring import RingMismatch
from shm_ring.records.scores import Score, Scores
from shmcam.runtime.clock import now_ns

log = logging.getLogger(__name__)

FRESH_NS = 15_000_000_000
"""The age from which a record is not passed on, because it would look new: a bit more than two night exposures."""

RETRY_NS = 250_000_000
"""The time between two attempts to open a missing ring; one costs as much as the headers of a dozen pictures."""


class ScoreReader:
    """The reader of the newest record; one thread uses it."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._mismatch_logged = False
        self._retry_ns = 0
        """The time of the next attempt, sensor clock."""

    def read(self) -> Score | None:
        """Returns the newest record; None while no analyzer runs."""
        now = now_ns()
        if now < self._retry_ns:
            return None
        try:
            score = self._scores.latest()
        except RingMismatch as problem:
            if not self._mismatch_logged:
                log.warning("scores cannot be read, pictures go without: %s", problem)
            self._mismatch_logged = True
            return None
        if score is None:
            self._retry_ns = now + RETRY_NS
            return None
        return score if now - score.captured_ns < FRESH_NS else None
