"""What is written onto recorded frames: time, frame number, rate, a text of the user's. How it looks is imaging's."""

from __future__ import annotations

from collections import deque
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from imaging.overlay import Style, Writing, luma_of
from recorder.settings import OverlaySettings
from shm_ring import FrameMeta

FPS_OVER = 30
"""Frames over which the shown rate is measured."""


def style_of(settings: OverlaySettings) -> Style:
    """The user's keys as a style."""
    return Style(
        font_scale=settings.font_scale_base,
        thickness=settings.thickness_base,
        brightness=luma_of(settings.text_color),
        background=settings.background,
        place=settings.place,
        margin_x=settings.margin_left,
        margin_y=settings.line_start_y,
    )


class Overlay:
    """Draws on each frame of one camera; called with a plane that is ours, never the ring's."""

    def __init__(self, settings: OverlaySettings) -> None:
        self.settings = settings
        self._writing: Writing | None = None
        self._height = 0
        self._times: deque[int] = deque(maxlen=FPS_OVER)

    def __call__(self, luma: NDArray[np.uint8], meta: FrameMeta) -> None:
        """Write onto `luma` (height, width)."""
        self._times.append(meta.captured_ns)
        if self._writing is None or luma.shape[0] != self._height:
            self._writing, self._height = Writing(style_of(self.settings), luma.shape[0]), luma.shape[0]
        self._writing.draw(luma, self.lines(meta))

    def lines(self, meta: FrameMeta) -> list[str]:
        """What is written, line by line."""
        own = self.settings
        parts = []
        if own.show_frame_number:
            parts.append(f"#{meta.frame_id}")
        if own.show_fps and len(self._times) > 1:
            span_ns = self._times[-1] - self._times[0]
            parts.append(f"{(len(self._times) - 1) * 1e9 / span_ns:.1f} fps" if span_ns > 0 else "")
        time_text = datetime.fromtimestamp(meta.captured_utc_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        return [time_text if own.show_time else "", "  ".join(parts), own.text]
