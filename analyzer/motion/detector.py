"""Measures how much of the frame moves, and where: differences from a running background on a coarse luma grid.

Robust by construction against what else changes pixels: a new exposure (the background is taken through the response
curve to the new exposure), a cloud or a lamp (the common change is taken out, and when most of the frame changes at
once the background starts again), noise (each cell is compared with its own noise), rain on one pixel (a moving cell
needs a moving neighbour). What moves differs from the background, else it is only what a mover has uncovered, and
from a moment ago, else it has come to rest. Method after Motion and Frigate, no code of theirs.

A cell is 2x2 pixels of the grid; zones and masks are sets of cells, from corners in fractions of the frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from analyzer.night.brightness import Bytes
from analyzer.night.transfer_curve import Response
from analyzer.settings import MotionSettings
from shmcam.config.polygon_checks import Corner

Cells = NDArray[np.bool_]

EVERYWHERE = ""
"""The name of the only zone when none is configured."""


def find_cells(corners: Sequence[Corner], shape: tuple[int, int]) -> Cells:
    """Returns the cells whose centre is inside: a rectangle (two opposite corners) or a polygon (even-odd rule)."""
    rows, columns = shape
    y = ((np.arange(rows) + 0.5) / rows)[:, None]
    x = ((np.arange(columns) + 0.5) / columns)[None, :]
    if len(corners) == 2:
        (x0, y0), (x1, y1) = corners
        return (x >= min(x0, x1)) & (x <= max(x0, x1)) & (y >= min(y0, y1)) & (y <= max(y0, y1))
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if y0 != y1:  # a level edge is never crossed by a level ray
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def find_zones(
    zones: Mapping[str, Sequence[Corner]], masks: Sequence[Sequence[Corner]], shape: tuple[int, int]
) -> dict[str, Cells]:
    """Returns the cells of each zone less the masks; one zone EVERYWHERE where none is named."""
    allowed = np.ones(shape, bool)
    for corners in masks:
        allowed &= ~find_cells(corners, shape)
    if not zones:
        return {EVERYWHERE: allowed}
    return {name: find_cells(corners, shape) & allowed for name, corners in zones.items()}


Floats = NDArray[np.float32]

CLIPPED = 247.0
"""Luma above which a cell may be saturated."""


def average_cells(pixels: Bytes) -> Floats:
    """Returns the means of 2x2 grid pixels, (rows // 2, columns // 2): half the noise, a quarter of the work."""
    rows, columns = pixels.shape
    if rows < 2 or columns < 2:
        return pixels.astype(np.float32)
    even = pixels[: rows // 2 * 2, : columns // 2 * 2].astype(np.uint16)
    pairs = even[0::2] + even[1::2]
    return (pairs[:, 0::2] + pairs[:, 1::2]).astype(np.float32) * np.float32(0.25)


def measure_common_change(cells: Floats, background: Floats) -> np.float32:
    """Returns the factor by which most of the frame changed: clouds, auto exposure of unknown size."""
    now, then = cells[1::4, 1::4], background[1::4, 1::4]
    usable = (then > 8.0) & (then < CLIPPED) & (now > 2.0) & (now < CLIPPED)
    ratios = now[usable] / then[usable]
    if ratios.size < 16:
        return np.float32(1.0)
    ratios.partition(ratios.size // 2)
    return np.float32(ratios[ratios.size // 2])


def drop_lone_cells(moving: Cells) -> Cells:
    """Drops moving cells without a moving neighbour above, below, left or right."""
    if not np.count_nonzero(moving):
        return moving
    near = np.zeros(moving.shape, bool)
    near[1:] |= moving[:-1]
    near[:-1] |= moving[1:]
    near[:, 1:] |= moving[:, :-1]
    near[:, :-1] |= moving[:, 1:]
    return moving & near


def bounds_of(moving: Cells) -> tuple[float, float, float, float]:
    """Returns x, y, width, height around the moving cells, fractions of the frame; at least one cell must move."""
    (rows,), (columns,) = (np.logical_or.reduce(moving, axis=axis).nonzero() for axis in (1, 0))
    height, width = moving.shape
    left, top = columns[0] / width, rows[0] / height
    return float(left), float(top), float((columns[-1] + 1) / width - left), float((rows[-1] + 1) / height - top)


BACKGROUND_S = 8.0
"""Time in which the background follows; something put down is part of it after a few of these."""
MOMENT_S = 0.5
"""A cell that has not changed since the frame half as long to so long ago is at rest."""
MOVING_SLOWDOWN = 4.0
"""The background follows so many times slower under a moving thing, or that would leave a ghost."""
NOISE_S = 20.0
LEAST_NOISE = 0.7
"""Luma; below it 8-bit rounding itself is the noise."""
FIRST_NOISE = 4.0
LEAST_STEP = 6.0
"""A smaller change of luma is invisible, whatever the noise."""
FLASH = 0.5
"""More of the frame changing at once is light, not motion (Frigate: 0.8, Motion: lightswitch)."""
EXPOSURE_STEP = 0.02
LONGEST_STEP_S = 5.0
"""Less than BACKGROUND_S and NOISE_S."""


class Motion(Struct, frozen=True):
    """The motion that one frame shows."""

    score: float
    """Moving fraction of the zone where most moves, 0..1."""
    box: tuple[float, float, float, float]
    """x, y, width, height around all that moves, fractions of the frame; zeros where nothing does."""
    zone: str
    """The zone with most motion, empty where none is configured."""
    area: float
    """Moving fraction of the whole frame within zones and masks."""


NO_MOTION = Motion(0.0, (0.0, 0.0, 0.0, 0.0), "", 0.0)


class MotionDetector:
    """The background and noise of one camera."""

    def __init__(self, settings: MotionSettings) -> None:
        self._settings = settings
        self._background: Floats | None = None
        self._before: tuple[Floats, Floats] | None = None
        self._kept_ns = 0
        self._noise: Floats = np.empty(0, np.float32)
        self._zones: dict[str, Cells] = {}
        self._zone_sizes: dict[str, int] = {}
        """The cells in each zone, at least 1."""
        self._watched: Cells = np.empty(0, bool)
        """The cells of all zones."""
        self._expected: tuple[Floats, Floats] | None = None
        """The cells of a frame that shows nothing new, and the difference up to which it does."""
        self._exposure_s = float("nan")
        self._captured_ns = 0

    @property
    def settings(self) -> MotionSettings:
        """The settings in force; zones are computed anew when they are replaced."""
        return self._settings

    @settings.setter
    def settings(self, settings: MotionSettings) -> None:
        self._settings = settings
        if self._background is not None:
            self._find_zones(self._background.shape)

    def sees_change(self, pixels: Bytes) -> bool:
        """Tells whether the next frame may show motion that the last observed one did not; it learns nothing."""
        cells = average_cells(pixels)
        if self._expected is None or self._expected[0].shape != cells.shape:
            return True
        expected, limit = self._expected
        return bool(np.count_nonzero((np.abs(cells - expected) > limit) & self._watched))

    def observe(self, pixels: Bytes, captured_ns: int, exposure_s: float, response: Response) -> Motion:
        """Compares the next settled frame's grid with the background. `exposure_s`: NaN where unknown."""
        cells = average_cells(pixels)
        if self._background is None or self._background.shape != cells.shape:
            self._start(cells, captured_ns, exposure_s)
            return NO_MOTION
        self._follow_exposure(exposure_s, response)
        background, before = self._background, self._find_moment_ago(cells, captured_ns)
        step_s = min(max((captured_ns - self._captured_ns) / 1e9, 0.0), LONGEST_STEP_S)
        self._captured_ns, self._exposure_s = captured_ns, exposure_s
        expected = background * measure_common_change(cells, background)
        size = np.abs(cells - expected)
        limit = np.maximum(self._settings.sensitivity * self._noise, LEAST_STEP)
        moving = (size > limit) & (np.minimum(background, cells) < CLIPPED)
        if np.count_nonzero(moving) > FLASH * moving.size:
            self._background, self._before, self._expected = cells, (cells, cells), None
            return NO_MOTION
        np.copyto(expected, cells, where=moving)  # what has come to rest may stay as it is
        self._expected = expected, limit
        moving &= np.abs(cells - before * measure_common_change(cells, before)) > limit
        moving = drop_lone_cells(moving)
        self._learn(cells, background, size, moving, step_s)
        return self._summarize(moving)

    def _start(self, cells: Floats, captured_ns: int, exposure_s: float) -> None:
        self._background, self._before, self._kept_ns = cells, (cells, cells), captured_ns
        self._noise = np.full(cells.shape, FIRST_NOISE, np.float32)
        self._captured_ns, self._exposure_s, self._expected = captured_ns, exposure_s, None
        self._find_zones(cells.shape)

    def _find_zones(self, shape: tuple[int, ...]) -> None:
        self._zones = find_zones(self._settings.zones, self._settings.masks, (shape[0], shape[1]))
        self._zone_sizes = {name: max(1, int(np.count_nonzero(cells))) for name, cells in self._zones.items()}
        self._watched = np.logical_or.reduce(list(self._zones.values()))

    def _follow_exposure(self, exposure_s: float, response: Response) -> None:
        """Converts the remembered cells to this frame's exposure."""
        ratio = exposure_s / self._exposure_s  # NaN where either is unknown: then the common change must do
        if not abs(ratio - 1.0) > EXPOSURE_STEP or self._background is None or self._before is None:
            return
        table = _exposure_table_of(response, ratio)
        self._background = _apply_table(table, self._background)
        self._before = _apply_table(table, self._before[0]), _apply_table(table, self._before[1])

    def _find_moment_ago(self, cells: Floats, captured_ns: int) -> Floats:
        """Returns the frame of MOMENT_S / 2 to MOMENT_S ago, the one before this where frames come more slowly."""
        older, newer = self._before or (cells, cells)
        if not 0 <= captured_ns - self._kept_ns < MOMENT_S / 2 * 1e9:
            self._before, self._kept_ns = (newer, cells), captured_ns
            return newer
        return older

    def _learn(self, cells: Floats, background: Floats, size: Floats, moving: Cells, step_s: float) -> None:
        change = cells - background
        change *= np.float32(step_s / BACKGROUND_S)
        np.divide(change, np.float32(MOVING_SLOWDOWN), out=change, where=moving)
        self._background = background + change
        # The mean absolute deviation of a Gaussian is 0.8 sigma. Moving cells say nothing about noise.
        noise = size * np.float32(1.25)
        noise -= self._noise
        noise *= np.float32(step_s / NOISE_S)
        noise += self._noise
        np.maximum(noise, np.float32(LEAST_NOISE), out=noise)
        np.copyto(noise, self._noise, where=moving)
        self._noise = noise

    def _summarize(self, moving: Cells) -> Motion:
        all_moving = moving & self._watched
        area = int(np.count_nonzero(all_moving))
        if not area:
            return NO_MOTION
        shares = {
            name: int(np.count_nonzero(all_moving & cells)) / self._zone_sizes[name]
            for name, cells in self._zones.items()
        }
        zone = max(shares, key=shares.__getitem__)
        return Motion(shares[zone], bounds_of(all_moving), zone, area / moving.size)


def _apply_table(table: Floats, cells: Floats) -> Floats:
    return np.take(table, (cells * 4.0).astype(np.intp), mode="clip")


@lru_cache(maxsize=32)
def _exposure_table_of(response: Response, ratio: float) -> Floats:
    """Returns the table from luma (in quarters, 0..1023) to luma at `ratio` times the exposure."""
    luma = np.arange(1024) / 4.0
    return response.luma(response.to_light(luma) * ratio).astype(np.float32)
