"""Draws one day of one camera as columns: a strip of pixels and a few numbers per minute.

Rules of this file: no files and no clock; memory bounded by the day. Time is local time of day in seconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analyzer.night.brightness import Bytes

DAY_S = 86_400.0
STRIP_ROWS, GRAPH_ROWS = 24, 96
EV_RANGE = (-18.0, 10.0)
"""Starlight to full sun in stops of `scene_ev` (10**-3.2 to 10**5 lux with libcamera's imx219 calibration)."""
NIGHT_RGB, DAY_RGB, TICK_RGB = (44, 62, 130), (226, 178, 64), (255, 255, 255)


def column_dtype_of(height: int) -> np.dtype[np.void]:
    """Returns the type of one column in memory and on disk."""
    return np.dtype(
        [
            ("index", "u4"),  # columns since the day began
            ("frames", "u4"),  # samples averaged
            ("level", "f4"),  # mean scene brightness, 0-255 on the video-mode scale
            ("ev", "f4"),  # mean scene brightness in stops
            ("dark_score", "f4"),  # mean luma 0-255
            ("night", "f4"),  # share of the samples taken at night
            ("rgb", "u1", (height, 3)),  # top to bottom
        ],
        align=True,
    )


class Column:
    """The present column, a mean of samples."""

    def __init__(self, index: int, height: int) -> None:
        self.index = index
        self._rgb = np.zeros((height, 3), np.float32)
        self._sums = np.zeros(4)
        self._frames = 0

    def add(self, strip: Bytes, level: float, ev: float, dark_score: float, *, night: bool) -> None:
        """Adds one sample to the mean. `strip`: (rows, 3) RGB of any number of rows."""
        self._rgb += resize_strip(strip, len(self._rgb))
        self._sums += (level, ev, dark_score, night)
        self._frames += 1

    def to_row(self) -> NDArray[np.void]:
        """Returns the column so far, one record."""
        count = max(1, self._frames)
        row = np.zeros(1, column_dtype_of(len(self._rgb)))
        row["index"], row["frames"] = self.index, self._frames
        row["level"], row["ev"], row["dark_score"], row["night"] = self._sums / count
        row["rgb"][0] = np.rint(self._rgb / count).astype(np.uint8)
        return row


def resize_strip(strip: Bytes, height: int) -> NDArray[np.float32]:
    """Resizes (rows, 3) to (height, 3): means of neighbouring rows, or rows repeated where there are too few."""
    rows = len(strip)
    if rows < height:
        return strip[np.arange(height) * rows // height].astype(np.float32)
    starts = np.arange(height) * rows // height
    sums = np.add.reduceat(strip.astype(np.float32), starts, axis=0)
    return (sums / np.diff(np.append(starts, rows))[:, None]).astype(np.float32)


def draw_keogram(columns: NDArray[np.void], column_s: float, day_starts_s: float) -> Bytes:
    """Draws the strips side by side, (height, n, 3), from the first column to the last; gaps stay black."""
    first, width = _span_of(columns)
    picture = np.zeros((columns["rgb"].shape[1], width, 3), np.uint8)
    picture[:, columns["index"] - first] = columns["rgb"].transpose(1, 0, 2)
    return _draw_ticks(picture, first, column_s, day_starts_s)


def draw_brightness_strip(columns: NDArray[np.void], column_s: float, day_starts_s: float) -> Bytes:
    """Draws brightness as the camera would see it (top) and in stops (below, blue at night), (120, n, 3)."""
    first, width = _span_of(columns)
    at = columns["index"] - first
    picture = np.zeros((STRIP_ROWS + GRAPH_ROWS, width, 3), np.uint8)
    grey = np.clip(columns["level"], 0, 255).astype(np.uint8)
    picture[:STRIP_ROWS, at] = grey[None, :, None]
    share = (np.clip(columns["ev"], *EV_RANGE) - EV_RANGE[0]) / (EV_RANGE[1] - EV_RANGE[0])
    tops = GRAPH_ROWS - np.rint(share * GRAPH_ROWS).astype(int)
    filled = np.arange(GRAPH_ROWS)[:, None] >= tops[None, :]
    colour = np.where((columns["night"] >= 0.5)[:, None], np.array(NIGHT_RGB), np.array(DAY_RGB)).astype(np.uint8)
    picture[STRIP_ROWS:, at] = filled[..., None] * colour[None]
    return _draw_ticks(picture, first, column_s, day_starts_s)


def _span_of(columns: NDArray[np.void]) -> tuple[int, int]:
    first = int(columns["index"].min())
    return first, int(columns["index"].max()) - first + 1


def _draw_ticks(picture: Bytes, first: int, column_s: float, day_starts_s: float) -> Bytes:
    """Marks full hours at the lower edge, every sixth one higher."""
    begin_s, end_s = day_starts_s + first * column_s, day_starts_s + (first + picture.shape[1]) * column_s
    for hour in range(int(np.ceil(begin_s / 3600)), int(np.ceil(end_s / 3600))):
        x = int((hour * 3600 - day_starts_s) / column_s) - first
        length = min(picture.shape[0], 10 if hour % 6 == 0 else 4)
        if 0 <= x < picture.shape[1]:
            picture[-length:, x] = TICK_RGB
    return picture
