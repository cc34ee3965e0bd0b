"""Which preset libx264 uses: the user's, or the fastest while too many frames wait. Pure."""

from __future__ import annotations

from collections import deque

from recorder.settings import Preset

FASTEST: Preset = "ultrafast"
BEHIND, CAUGHT_UP = 0.5, 0.1
"""Shares of the ring: with more frames waiting the fastest preset is used, with fewer the user's again."""
LAGS = 15
"""Frames over which it is seen whether the lag shrinks."""


class Pace:
    """Sees how far the encoder is behind."""

    def __init__(self, preset: Preset) -> None:
        self.preset: Preset = preset
        """What should be used now."""
        self._lags: deque[int] = deque(maxlen=LAGS)

    def saw(self, lag: int, slots: int, own: Preset) -> None:
        """Note how many frames wait in a ring of `slots`; `own` is the user's preset."""
        self._lags.append(lag)
        if lag > BEHIND * slots and lag >= self._lags[0] and len(self._lags) == LAGS:
            self.preset = FASTEST  # a backlog (pre-roll) that shrinks needs no help
        elif lag < CAUGHT_UP * slots:
            self.preset = own
