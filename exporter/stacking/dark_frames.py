"""Dark frames: what the sensor shows with the lid on, taken once and subtracted from later stacks.

A dark frame belongs to one camera, exposure and gain. It corrects warm and hot pixels of the pictures as they come out
of the camera's own processing, not raw sensor values; hence "dark frame" here is what others call hot-pixel removal.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.stacking.tone_map import views
from shm_ring.formats import Geometry
from shmcam.imaging.accumulate import SCALE_TO_16_BITS, Samples16
from shmcam.runtime.files import DAMAGED, set_aside, whole_file

FOLDER = "_darks"
"""Below export.base_dir; the underscore keeps the library from taking them for pictures."""
MIN_FRAMES = 16
"""A dark frame of fewer adds its own noise to every picture it is meant to clean."""
HOT_SIGMAS = 8.0
"""A pixel so far above the dark frame's median is hot: its neighbours tell more than itself."""
SIGMA_OF_MAD = 1.4826
"""Standard deviation of Gaussian noise with median absolute deviation 1."""
EXPOSURE_TOLERANCE = 0.1
"""Share by which exposure and gain may differ: the camera's own steps are finer."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Dark:
    """One dark frame."""

    level: Samples16
    """Payload layout of its geometry, 1/257 of an 8-bit step, luma above black; 0 in chroma."""
    hot: Mask
    """True where the pixel is replaced rather than corrected."""


def measure_dark(deep: Samples16, geometry: Geometry) -> Dark:
    """Make a dark frame of a median stack of covered frames."""
    level = np.zeros_like(deep)
    hot = np.zeros(deep.size, np.bool_)
    chroma_after = 1 if geometry.pixel_format in ("yuv420p", "nv12") else None
    rows = zip(views(deep, geometry), views(level, geometry), views(hot, geometry), strict=True)
    for plane, target, mask in list(rows)[:chroma_after]:
        median = float(np.median(plane))
        spread = SIGMA_OF_MAD * float(np.median(np.abs(plane - median)))
        target[...] = np.clip(plane - median, 0, None)
        mask[...] = plane > median + HOT_SIGMAS * max(spread, SCALE_TO_16_BITS / 4)
    return Dark(level, hot)


def subtract_dark(deep: Samples16, geometry: Geometry, dark: Dark) -> Samples16:
    """A stack without what the dark frame shows: its level subtracted, hot pixels from their neighbours."""
    result = np.where(deep > dark.level, deep - dark.level, 0).astype(np.uint16)
    for plane, mask in zip(views(result, geometry), views(dark.hot, geometry), strict=True):
        if mask.any():
            np.copyto(plane, _neighbours(plane), where=mask)
    return result


def save_dark(dark: Dark, path: Path) -> None:
    """Put a dark frame on disk, whole. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, level=dark.level, hot=dark.hot)
    with whole_file(path, replace=True) as file:
        file.write(buffer.getbuffer())


def load_dark(folder: Path, camera: str, exposure_us: int, gain: float, size: int) -> Dark | None:
    """The dark frame of this camera, exposure and gain, if there is one of this payload size. Raises: OSError."""
    for path in sorted(folder.glob(f"{camera}_*us_*x.npz")):
        name_of, *of = path.stem.rsplit("_", 2)
        if name_of != camera:  # "front" and "front_door" begin alike
            continue
        known_us, known_gain = (float(part.rstrip("usx")) for part in of)
        if _close(known_us, exposure_us) and _close(known_gain, gain):
            try:
                with np.load(path, allow_pickle=False) as stored:
                    dark = Dark(stored["level"], stored["hot"])
            except DAMAGED as problem:
                set_aside(path, problem)
                continue
            return dark if dark.level.size == size else None
    return None


def dark_name(camera: str, exposure_us: int, gain: float) -> str:
    """File name that tells what the dark frame is for."""
    return f"{camera}_{exposure_us}us_{gain:.2f}x.npz"


def _close(known: float, wanted: float) -> bool:
    return wanted > 0 and abs(known / wanted - 1) <= EXPOSURE_TOLERANCE


def _neighbours(plane: NDArray[Any]) -> NDArray[Any]:
    """The median of the four neighbours of every pixel, edges repeated."""
    if plane.ndim == 3:
        return np.stack([_neighbours(plane[..., channel]) for channel in range(plane.shape[2])], axis=-1)
    around = cv2.copyMakeBorder(np.ascontiguousarray(plane), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    four = np.stack([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])
    four.sort(axis=0)
    return np.asarray((four[1].astype(np.uint32) + four[2] + 1) // 2, np.uint16)
