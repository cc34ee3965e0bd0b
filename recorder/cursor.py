"""Where the recorder is in the ring: every frame in order, back in time for a pre-roll, across generations."""

from __future__ import annotations

import shm_ring


class Cursor(shm_ring.Cursor):
    """Position in a live ring; a first one is joined at its newest frame. One thread uses it."""

    def newest(self) -> None:
        """Skip to the frame that comes next."""
        if (reader := self.attach()) is not None:
            self.position = reader.head

    def seek(self, captured_ns: int) -> None:
        """Go to the first frame captured then or later that is still there."""
        if (reader := self.attach()) is not None:
            frames = reader.window(captured_ns, 1 << 62)
            self.position = frames.start if frames else reader.head

    def advance(self) -> None:
        """The frame of the last step is done."""
        self.position += 1

    @property
    def lost(self) -> int:
        """Frames that were overwritten before they were read."""
        return self._ring.lost

    @lost.setter
    def lost(self, frames: int) -> None:
        self._ring.lost = frames

    @property
    def lag(self) -> int:
        """Frames in the ring that were not read yet."""
        return max(0, self._reader.head - self.position) if self._reader is not None else 0

    @property
    def slots(self) -> int:
        """Depth of the ring; 0 while there is none."""
        return self._reader.slots if self._reader is not None else 0
