"""Measures, stores and subtracts dark frames: what the sensor shows with the lid on, taken once for later stacks.

A dark frame belongs to one camera, exposure and gain. It corrects warm and hot pixels of pictures that the camera has
processed already, not raw sensor values; other programs call this hot-pixel removal.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import asdict
from numpy.typing import NDArray

from exporter.stacking.tone_map import planes_of
from shm_ring import FrameMeta
from shm_ring.formats import Geometry
from shmcam.imaging.accumulate import SCALE_TO_16_BITS, Samples16
from shmcam.runtime.atomic_files import DAMAGE_ERRORS, open_atomic, open_regular, set_aside

FOLDER = "_darks"
"""Below export.base_dir; because of the underscore the library does not take them for pictures."""
MAX_DARK_BYTES = 256 << 20
"""The largest dark frame that is read: two bytes a sample of 64 MP, and hot pixels."""
MIN_FRAMES = 16
"""A dark frame of fewer frames adds its own noise to every picture."""
HOT_SIGMAS = 8.0
"""A pixel so far above the dark frame's median is hot: its neighbours are better data than itself."""
SIGMA_OF_MAD = 1.4826
"""Standard deviation of Gaussian noise with median absolute deviation 1."""
GAIN_TOLERANCE = 0.1
"""Share by which the gain may differ: the camera's own steps are finer."""
MOST_TIMES_APART = 2.0
"""Exposures so many times apart have dark current too different to be scaled."""
REFUSALS_TOLD = 3
UNKNOWN_GEOMETRY = ("", 0, 0)

Mask = NDArray[np.bool_]


class DarkFrame(Struct, frozen=True):
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


class DarkFacts(Struct, frozen=True):
    """What a dark frame belongs to; it stands in its file."""

    camera: str
    exposure_us: int
    gain: float
    geometry: tuple[str, int, int]
    """Pixel format, width, height."""
    camera_id: str = ""
    """What tells this camera from another one at the same place; empty: unknown."""
    taken_utc_ns: int = 0

    def describe_age(self, now_utc_ns: int) -> str:
        """Returns the age in words."""
        days = (now_utc_ns - self.taken_utc_ns) / 86_400e9
        return f"{days:.0f} days old" if days >= 2 else f"{max(0.0, days * 24):.0f} h old"


def facts_of(camera: str, meta: FrameMeta, geometry: Geometry, camera_id: str) -> DarkFacts:
    """Returns what a dark frame of such frames belongs to."""
    size = (geometry.pixel_format, geometry.width, geometry.height)
    return DarkFacts(camera, meta.exposure_us, meta.analogue_gain, size, camera_id, meta.captured_utc_ns)


class DarkChoice(Struct, frozen=True):
    """The dark frame for a stack, or the reason why there is none."""

    dark: DarkFrame | None
    words: str
    """Which one and how old, or why none fits; empty: none was ever taken for this camera."""


NO_DARK = DarkChoice(None, "")


def save_dark(dark: DarkFrame, folder: Path, facts: DarkFacts) -> Path:
    """Writes a dark frame to disk, whole or not at all, in the place of an older one of the same name.

    Returns: its path, named by all that it must have in common with a stack. Raises: OSError.
    """
    pixel_format, width, height = facts.geometry
    name = f"{facts.camera}_{width}x{height}_{pixel_format}_{facts.exposure_us}us_{facts.gain:.2f}x.npz"
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, level=dark.level, hot=dark.hot, facts=np.array(json.dumps(asdict(facts))))
    with open_atomic(path, replace=True) as file:
        file.write(buffer.getbuffer())
    return path


def choose_dark(folder: Path, wanted: DarkFacts, payload_bytes: int, now_utc_ns: int) -> DarkChoice:
    """Chooses the newest dark frame of the nearest exposure, of the same camera, size and gain."""
    refused: list[str] = []
    fitting: list[tuple[float, int, Path, DarkFacts]] = []
    for path in sorted(folder.glob(f"{wanted.camera}_*us_*x.npz")):
        try:
            facts = _read_facts(path)
        except DAMAGE_ERRORS as problem:
            set_aside(path, problem)
            continue
        except OSError as problem:
            refused.append(f"{path.name}: {problem}")
            continue
        if facts.camera != wanted.camera:  # "front" and "front_door" begin alike
            continue
        if reason := _why_not(facts, wanted):
            refused.append(f"{path.name}: {reason}")
        else:
            times_apart = _times_apart(facts.exposure_us, wanted.exposure_us)
            fitting.append((times_apart, -facts.taken_utc_ns, path, facts))
    for _, _, path, facts in sorted(fitting, key=lambda item: item[:3]):
        try:
            dark = _read_dark(path)
        except DAMAGE_ERRORS as problem:
            set_aside(path, problem)
            continue
        except OSError as problem:
            refused.append(f"{path.name}: {problem}")
            continue
        if dark.level.size != payload_bytes:
            refused.append(f"{path.name}: has {dark.level.size} bytes, the stack {payload_bytes}")
            continue
        words = f"{path.name}, {facts.exposure_us / 1e6:g} s, {facts.describe_age(now_utc_ns)}"
        return DarkChoice(_scale(dark, wanted.exposure_us / facts.exposure_us), words)
    return DarkChoice(None, "; ".join(refused[:REFUSALS_TOLD]))


def _read_dark(path: Path) -> DarkFrame:
    """Raises: OSError; DAMAGE_ERRORS where it is none of ours."""
    with open_regular(path, MAX_DARK_BYTES) as file, np.load(file, allow_pickle=False) as stored:
        dark = DarkFrame(stored["level"], stored["hot"])
    is_ours = dark.level.dtype == np.uint16 and dark.hot.dtype == np.bool_
    if not is_ours or (dark.level.size,) != dark.hot.shape:
        raise ValueError("level and hot pixels of another type or size")
    return dark


def _read_facts(path: Path) -> DarkFacts:
    """Reads what a dark frame belongs to; of one without facts, as older versions wrote, from its name and size."""
    with open_regular(path, MAX_DARK_BYTES) as file, np.load(file, allow_pickle=False) as stored:
        if "facts" in stored:
            return msgspec.json.decode(str(stored["facts"]), type=DarkFacts)
    camera, exposure, gain = path.stem.rsplit("_", 2)
    taken_utc_ns = path.stat().st_mtime_ns
    return DarkFacts(camera, int(exposure.rstrip("us")), float(gain.rstrip("x")), UNKNOWN_GEOMETRY, "", taken_utc_ns)


def _why_not(facts: DarkFacts, wanted: DarkFacts) -> str:
    """Returns why a dark frame does not fit; empty: it does."""
    if facts.geometry not in (wanted.geometry, UNKNOWN_GEOMETRY):
        size, needed = (f"{width}x{height} {pixels}" for pixels, width, height in (facts.geometry, wanted.geometry))
        return f"is {size}, the stack {needed}"
    if facts.camera_id and wanted.camera_id and facts.camera_id != wanted.camera_id:
        return f"is of another camera ({facts.camera_id}; now {wanted.camera_id})"
    if not wanted.exposure_us or wanted.gain <= 0:
        return "the camera does not tell its exposure and gain"
    if abs(facts.gain / wanted.gain - 1) > GAIN_TOLERANCE:
        return f"has gain {facts.gain:g}, the stack {wanted.gain:g}"
    if _times_apart(facts.exposure_us, wanted.exposure_us) >= MOST_TIMES_APART:
        return f"has {facts.exposure_us / 1e6:g} s, the stack {wanted.exposure_us / 1e6:g} s: twice or half and more"
    return ""


def _times_apart(first_us: int, second_us: int) -> float:
    low, high = sorted((first_us, second_us))
    return high / low if low > 0 else math.inf


def _scale(dark: DarkFrame, factor: float) -> DarkFrame:
    """Returns the dark frame for a shorter exposure, as dark current grows with time; scaled up, its noise would be."""
    if factor >= 1:
        return dark
    return DarkFrame(np.rint(dark.level * np.float32(factor)).astype(np.uint16), dark.hot)


def _median_of_neighbours(plane: NDArray[Any]) -> NDArray[Any]:
    """Returns the median of the four neighbours of every pixel, edges repeated."""
    if plane.ndim == 3:
        return np.stack([_median_of_neighbours(plane[..., channel]) for channel in range(plane.shape[2])], axis=-1)
    around = cv2.copyMakeBorder(np.ascontiguousarray(plane), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    four = np.stack([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])
    four.sort(axis=0)
    return np.asarray((four[1].astype(np.uint32) + four[2] + 1) // 2, np.uint16)
