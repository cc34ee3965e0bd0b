"""The user's [recorder.overlay] as something that draws on recorded frames; how it looks is imaging's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recorder.settings import OverlaySettings
from shm_ring import FrameMeta
from shmcam.imaging import text_overlay


class FrameOverlay:
    """Draws on each frame of one camera; called with a plane that is ours, never the ring's."""

    def __init__(self, settings: OverlaySettings) -> None:
        self._overlay = text_overlay.overlay_of({name: getattr(settings, name) for name in settings.__struct_fields__})

    def __call__(self, luma: NDArray[np.uint8], meta: FrameMeta) -> None:
        """Write onto `luma` (height, width)."""
        self._overlay.draw(luma, meta.frame_id, meta.captured_ns, meta.captured_utc_ns)

    def lines(self, meta: FrameMeta) -> list[str]:
        """What is written, line by line."""
        return self._overlay.format_lines(meta.frame_id, meta.captured_utc_ns)
