"""Draws one day of one camera as columns: a strip of pixels and a few numbers per minute.

Columns are by UTC, labels by local time. No files and no clock here; memory is bounded by the day.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from analyzer.keogram.local_day import DayInfo
from analyzer.keogram.sun import find_crossings
from analyzer.night.brightness import Bytes
from shmcam.imaging.bitmap_text import LETTER_HEIGHT, draw_text, text_width_of

STRIP_ROWS, GRAPH_ROWS = 24, 140
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 40, 42
"""Pixels around the columns: the scale at the left, title and sun above, hours below."""
LEAST_WIDTH = 720
"""Pixels of a day at least: with long columns each is drawn several pixels wide."""
HOUR_LABEL_WIDTH = 30
"""Pixels that the label of an hour needs; with less room only every second, third, sixth is written."""
EV_STEP = 5
TITLE_Y, SUN_Y = 4, 22
HOUR_Y, ZONE_Y = 8, 24

Color = tuple[int, int, int]
EV_RANGE = (-18.0, 10.0)
"""Starlight to full sun in stops of `scene_ev` (10**-3.2 to 10**5 lux with libcamera's imx219 calibration)."""
NIGHT_RGB, DAY_RGB = (70, 96, 190), (226, 178, 64)
PAPER_RGB, TEXT_RGB, LINE_RGB, UNSEEN_RGB = (18, 20, 24), (232, 232, 232), (110, 114, 122), (48, 50, 56)
SUNRISE_RGB, SUNSET_RGB = (255, 200, 90), (255, 120, 60)


def column_dtype_of(height: int) -> np.dtype[np.void]:
    """Returns the type of one column in memory and on disk."""
    return np.dtype(
        [
            ("utc_s", "f8"),  # its begin, seconds since 1970
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

    def __init__(self, utc_s: float, height: int) -> None:
        self.utc_s = utc_s
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
        row["utc_s"], row["frames"] = self.utc_s, self._frames
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


def merge_into(columns: dict[int, NDArray[np.void]], index: int, row: NDArray[np.void]) -> None:
    """Adds a column; one that is there already (a restart, a clock that was set back) becomes the mean of both."""
    if (old := columns.get(index)) is None:
        columns[index] = row
        return
    frames = int(old["frames"][0]) + int(row["frames"][0])
    share = float(row["frames"][0]) / max(1, frames)
    merged = old.copy()
    for name in ("level", "ev", "dark_score", "night"):
        merged[name] = old[name] * (1 - share) + row[name] * share
    merged["rgb"] = np.rint(old["rgb"] * (1 - share) + row["rgb"] * share)
    merged["frames"] = frames
    columns[index] = merged


def draw_keogram(columns: NDArray[np.void], info: DayInfo) -> Bytes:
    """Draws the strips side by side over the whole day, with hours, sunrise and sunset; what was not seen is grey."""
    chart = _Chart(columns, info, rows=columns["rgb"].shape[1])
    for pixels, column in chart.place(columns):
        pixels[:] = column["rgb"][:, None]
    chart.draw_title(f"one column of the picture every {info.column_s:g} s", [(UNSEEN_RGB, "no pictures")])
    chart.draw_hours()
    chart.draw_sun()
    return chart.picture


def draw_brightness_strip(columns: NDArray[np.void], info: DayInfo) -> Bytes:
    """Draws brightness as the camera would see it (top) and in stops (below, blue at night), over the whole day."""
    chart = _Chart(columns, info, rows=STRIP_ROWS + GRAPH_ROWS)
    for pixels, column in chart.place(columns):
        pixels[:] = PAPER_RGB
        pixels[:STRIP_ROWS] = np.clip(column["level"], 0, 255).astype(np.uint8)
        pixels[_row_of(float(column["ev"])) :] = NIGHT_RGB if column["night"] >= 0.5 else DAY_RGB
    for stops in range(-15, round(EV_RANGE[1]), EV_STEP):
        chart.draw_grid_line(_row_of(stops), f"{stops:+d}" if stops else "0")
    chart.draw_scale_label("luma", STRIP_ROWS // 2)
    chart.draw_scale_label("stops", STRIP_ROWS + 10)
    legend = [(DAY_RGB, "day"), (NIGHT_RGB, "night"), (UNSEEN_RGB, "no pictures")]
    chart.draw_title("brightness as video shows it (top), in stops (below)", legend)
    chart.draw_hours()
    chart.draw_sun()
    return chart.picture


def _row_of(ev: float) -> int:
    """Returns the row of the brightness strip for a brightness in stops."""
    share = (min(max(ev, EV_RANGE[0]), EV_RANGE[1]) - EV_RANGE[0]) / (EV_RANGE[1] - EV_RANGE[0])
    return STRIP_ROWS + GRAPH_ROWS - round(share * GRAPH_ROWS)


class _Chart:
    """A picture of a whole day: columns in the middle, and around them title, legend, scale, hours and sun."""

    def __init__(self, columns: NDArray[np.void], info: DayInfo, rows: int) -> None:
        day, column_s = info.day, info.column_s
        times = columns["utc_s"]
        self._info = info
        self._first = min(0, day.index_of(float(times.min()), column_s))
        last = max(day.index_of(day.end_s - 1e-3, column_s), day.index_of(float(times.max()), column_s))
        count = last + 1 - self._first
        self._scale = -(-LEAST_WIDTH // count)
        width = count * self._scale
        self._begin_s = day.begin_s + self._first * column_s
        self._end_s = self._begin_s + count * column_s
        self.picture = np.full((TOP + rows + BOTTOM, LEFT + width + RIGHT, 3), PAPER_RGB, np.uint8)
        self._plot = self.picture[TOP : TOP + rows, LEFT : LEFT + width]
        self._plot[:] = UNSEEN_RGB

    def place(self, columns: NDArray[np.void]) -> Iterator[tuple[Bytes, np.void]]:
        """Yields the pixels of each column, (rows, n, 3), with it."""
        for column in columns:
            index = self._info.day.index_of(float(column["utc_s"]), self._info.column_s) - self._first
            yield self._plot[:, index * self._scale : (index + 1) * self._scale], column

    def draw_title(self, text: str, legend: list[tuple[Color, str]]) -> None:
        """Writes camera, day and text above the columns, and the legend at their right."""
        x = LEFT + self._plot.shape[1]
        for color, word in reversed(legend):
            x -= text_width_of(word)
            self._write(word, x, TITLE_Y)
            x -= 14
            self.picture[TITLE_Y + 3 : TITLE_Y + 12, x : x + 9] = color
            x -= 12
        title = f"{self._info.camera}  {self._info.day.date}  {text}"
        self._write(title[: max(0, (x - LEFT) // text_width_of(" "))], LEFT, TITLE_Y)

    def draw_hours(self) -> None:
        """Marks the full hours of the local clock below the columns; one that comes twice stands there twice."""
        hour_width = 3600 * self._plot.shape[1] / (self._end_s - self._begin_s)
        step = next((step for step in (1, 2, 3, 6) if step * hour_width >= HOUR_LABEL_WIDTH), 12)
        top = TOP + len(self._plot)
        zone = ""
        quarter = 900 * math.ceil(self._begin_s / 900)  # time zones differ by quarters of an hour
        for utc_s in range(quarter, math.floor(self._end_s) + 1, 900):
            local = datetime.fromtimestamp(utc_s)
            if (name := time.localtime(utc_s).tm_zone) != zone and utc_s < self._end_s:
                zone = name
                self._write(zone, self._x_of(utc_s), top + ZONE_Y)
            if local.minute:
                continue
            x = self._x_of(utc_s)
            self.picture[top : top + (6 if local.hour % step == 0 else 3), x] = TEXT_RGB
            if local.hour % step == 0:
                self._write(f"{local.hour:02}", x - text_width_of("00") // 2, top + HOUR_Y)

    def draw_sun(self) -> None:
        """Marks sunrise and sunset where the camera's position is known."""
        if self._info.position is None:
            return
        for utc_s, rises in find_crossings(self._begin_s, self._end_s, self._info.position):
            x, color = self._x_of(utc_s), SUNRISE_RGB if rises else SUNSET_RGB
            self._plot[::2, min(x - LEFT, self._plot.shape[1] - 1)] = color
            word = f"{'sunrise' if rises else 'sunset'} {datetime.fromtimestamp(utc_s):%H:%M}"
            left = min(max(LEFT, x - text_width_of(word) // 2), self.picture.shape[1] - text_width_of(word))
            self._write(word, left, SUN_Y, color)

    def draw_grid_line(self, row: int, label: str) -> None:
        """Draws a dotted line across the columns, with its number at the left."""
        dots = self._plot[row, ::4]
        dots[:] = dots // 2 + np.array(LINE_RGB, np.uint8) // 2
        self.draw_scale_label(label, row)

    def draw_scale_label(self, label: str, row: int) -> None:
        """Writes a word at the left of a row of the columns."""
        self._write(label, LEFT - 5 - text_width_of(label), TOP + row - LETTER_HEIGHT // 2)

    def _x_of(self, utc_s: float) -> int:
        share = (utc_s - self._begin_s) / (self._end_s - self._begin_s)
        return int(LEFT + round(share * self._plot.shape[1]))

    def _write(self, text: str, x: int, y: int, color: Color = TEXT_RGB) -> None:
        draw_text(self.picture, text, x, y, color)
