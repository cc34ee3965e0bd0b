"""Measures, stores and subtracts dark frames: what the sensor shows with the lid on, taken once for later stacks.

A dark frame belongs to one camera, exposure and gain. It corrects warm and hot pixels of pictures that the camera has
processed already, not raw sensor values; other programs call this hot-pixel removal.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.stacking.tone_map import planes_of
from shm_ring.formats import Geometry
from shmcam.imaging.accumulate import SCALE_TO_16_BITS, Samples16
from shmcam.runtime.atomic_files import DAMAGE_ERRORS, open_atomic, set_aside

FOLDER = "_darks"
"""Below export.base_dir; because of the underscore the library does not take them for pictures."""
MIN_FRAMES = 16
"""A dark frame of fewer frames adds its own noise to every picture."""
HOT_SIGMAS = 8.0
"""A pixel so far above the dark frame's median is hot: its neighbours are better data than itself."""
SIGMA_OF_MAD = 1.4826
"""Standard deviation of Gaussian noise with median absolute deviation 1."""
EXPOSURE_TOLERANCE = 0.1
"""Share by which exposure and gain may differ: the camera's own steps are finer."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DarkFrame:
    """One dark frame."""

    level: Samples16
    """Payload layout of its geometry, 1/257 of an 8-bit step, luma above black; 0 in chroma."""
    hot: Mask
    """True where the pixel is replaced by its neighbours instead of corrected."""


def measure_dark(samples: Samples16, geometry: Geometry) -> DarkFrame:
    """Makes a dark frame of a median stack of covered frames."""
    level = np.zeros_like(samples)
    hot = np.zeros(samples.size, np.bool_)
    chroma_after = 1 if geometry.pixel_format in ("yuv420p", "nv12") else None
    rows = zip(planes_of(samples, geometry), planes_of(level, geometry), planes_of(hot, geometry), strict=True)
    for plane, target, mask in list(rows)[:chroma_after]:
        median = float(np.median(plane))
        spread = SIGMA_OF_MAD * float(np.median(np.abs(plane - median)))
        target[...] = np.clip(plane - median, 0, None)
        mask[...] = plane > median + HOT_SIGMAS * max(spread, SCALE_TO_16_BITS / 4)
    return DarkFrame(level, hot)


def subtract_dark(samples: Samples16, geometry: Geometry, dark: DarkFrame) -> Samples16:
    """Returns the stack with the dark level subtracted and hot pixels replaced by their neighbours."""
    result = np.where(samples > dark.level, samples - dark.level, 0).astype(np.uint16)
    for plane, mask in zip(planes_of(result, geometry), planes_of(dark.hot, geometry), strict=True):
        if mask.any():
            np.copyto(plane, _median_of_neighbours(plane), where=mask)
    return result


def save_dark(dark: DarkFrame, path: Path) -> None:
    """Writes a dark frame to disk, whole or not at all. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, level=dark.level, hot=dark.hot)
    with open_atomic(path, replace=True) as file:
        file.write(buffer.getbuffer())


def load_dark(folder: Path, camera: str, exposure_us: int, gain: float, size: int) -> DarkFrame | None:
    """Returns the dark frame of this camera, exposure, gain and payload size, if there is one. Raises: OSError."""
    for path in sorted(folder.glob(f"{camera}_*us_*x.npz")):
        name, *numbers = path.stem.rsplit("_", 2)
        if name != camera:  # "front" and "front_door" begin alike
            continue
        dark_us, dark_gain = (float(number.rstrip("usx")) for number in numbers)
        if _is_close(dark_us, exposure_us) and _is_close(dark_gain, gain):
            try:
                with np.load(path, allow_pickle=False) as stored:
                    dark = DarkFrame(stored["level"], stored["hot"])
            except DAMAGE_ERRORS as problem:
                set_aside(path, problem)
                continue
            return dark if dark.level.size == size else None
    return None


def name_dark_file(camera: str, exposure_us: int, gain: float) -> str:
    """Returns the file name: camera, exposure and gain."""
    return f"{camera}_{exposure_us}us_{gain:.2f}x.npz"


def _is_close(dark: float, current: float) -> bool:
    return current > 0 and abs(dark / current - 1) <= EXPOSURE_TOLERANCE


def _median_of_neighbours(plane: NDArray[Any]) -> NDArray[Any]:
    """Returns the median of the four neighbours of every pixel, edges repeated."""
    if plane.ndim == 3:
        return np.stack([_median_of_neighbours(plane[..., channel]) for channel in range(plane.shape[2])], axis=-1)
    around = cv2.copyMakeBorder(np.ascontiguousarray(plane), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    four = np.stack([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])
    four.sort(axis=0)
    return np.asarray((four[1].astype(np.uint32) + four[2] + 1) // 2, np.uint16)
