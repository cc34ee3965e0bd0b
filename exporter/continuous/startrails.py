"""Stacks the night of one camera into two pictures: startrails (brightest) and the night's mean, frame by frame.

Memory is two accumulators, for a night of any length. The state is saved at intervals, so that a kill costs at most one
interval: the next start continues the same night.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.stacking.stack import StackResult
from shm_ring import Flags, Frame, FrameMeta
from shm_ring.color import luma
from shm_ring.formats import Geometry
from shmcam.imaging.accumulate import MAX_FRAMES, ExtremeStack, MeanStack
from shmcam.imaging.jpeg import to_jpeg
from shmcam.runtime.atomic_files import DAMAGE_ERRORS, open_atomic, set_aside

log = logging.getLogger(__name__)

FOLDER = "_night"
"""The folder below export.base_dir for the state of tonight, and the trails so far as a picture."""
SAME_NIGHT_S = 4 * 3600.0
"""Seconds without night frames after which a new night begins (or the camera was off for most of this one)."""
TOO_BRIGHT = 0.35 * 255
"""Mean luma; a passing car or dawn would wash the trails out (0.35 is allsky's limit)."""
DAY_FRAMES_TO_END = 3
"""Day frames in a row that end a night; the flag of a single one may be late."""
SAMPLE_STEP = 8
"""Every 8th pixel of every 8th row counts for the brightness of a frame."""


@dataclass
class NightStack:
    """The stacks of one night so far."""

    geometry: Geometry
    first: FrameMeta
    last: FrameMeta
    trails: ExtremeStack
    mean: MeanStack
    left_out: int = 0
    """The number of frames that were too bright."""

    @property
    def brightest(self) -> StackResult:
        """The startrails so far."""
        return StackResult(
            self.trails.to_16_bits(), self.geometry, (self.first, self.last), self.left_out, self.trails.count
        )

    @property
    def average(self) -> StackResult:
        """The mean of the night so far."""
        return StackResult(
            self.mean.to_16_bits(), self.geometry, (self.first, self.last), self.left_out, self.mean.count
        )

    @property
    def summary(self) -> dict[str, object]:
        """The fields for the pictures' EXIF."""
        hours = (self.last.captured_ns - self.first.captured_ns) / 3600e9
        return {"frames": self.trails.count, "left_out": self.left_out, "hours": round(hours, 3)}


class StarTrails:
    """Stacks the nights of one camera, one after the other. Used by one thread."""

    def __init__(self, camera: str, folder: Callable[[], Path]) -> None:
        """`folder` returns the present export.base_dir."""
        self._camera = camera
        self._folder = folder
        self._saved_ns = 0
        self._day_frames = 0
        self.night: NightStack | None = None

    def add(self, frame: Frame) -> NightStack | None:
        """Adds one frame. Returns: the night that this frame ends, if it does."""
        meta = frame.meta
        is_night = bool(meta.flags & Flags.NIGHT)
        self._day_frames = 0 if is_night else self._day_frames + 1
        ended = self.night if self._is_over(frame) else None
        if ended is not None:
            self.night = None
        if is_night and not meta.flags & Flags.SETTLING:
            self._add_to_night(frame)
        return ended

    def save_state(self, now_ns: int, interval_s: float) -> None:
        """Saves the state if it is time. Raises: OSError."""
        night = self.night
        if night is None or now_ns - self._saved_ns < interval_s * 1e9:
            return
        self._saved_ns = now_ns
        state, picture = self._paths
        state.parent.mkdir(parents=True, exist_ok=True)
        description = {
            "geometry": asdict(night.geometry),
            "first": asdict(night.first),
            "last": asdict(night.last),
            "counts": [night.trails.count, night.mean.count, night.left_out],
        }
        buffer = io.BytesIO()
        np.savez(buffer, trails=night.trails.value, mean=night.mean.total, facts=np.array(json.dumps(description)))
        with open_atomic(state, replace=True) as file:
            file.write(buffer.getbuffer())
        with open_atomic(picture, replace=True) as file:
            file.write(to_jpeg(night.trails.value, night.geometry, 90))

    def load_state(self) -> None:
        """Continues the night of a killed process. A damaged state is set aside, and logged."""
        state, _ = self._paths
        try:
            with np.load(state, allow_pickle=False) as stored:
                self.night = _restore_night(json.loads(str(stored["facts"])), stored["trails"], stored["mean"])
        except FileNotFoundError:
            return
        except OSError as problem:
            log.warning("night not resumed camera=%s reason=%s", self._camera, problem)
            return
        except DAMAGE_ERRORS as problem:
            set_aside(state, problem)
            return
        log.info("night resumed camera=%s frames=%d", self._camera, self.night.trails.count)

    def delete_state(self) -> None:
        """Deletes the state of a night whose pictures are saved."""
        for path in self._paths:
            with suppress(FileNotFoundError):
                path.unlink()

    @property
    def _paths(self) -> tuple[Path, Path]:
        folder = self._folder() / FOLDER
        return folder / f"{self._camera}.npz", folder / f"{self._camera}.jpg"

    def _is_over(self, frame: Frame) -> bool:
        if self.night is None:
            return False
        # The wall clock of the frames: the sensor's clock starts at 0 with each boot.
        pause_s = abs(frame.meta.captured_utc_ns - self.night.last.captured_utc_ns) / 1e9
        return self._day_frames >= DAY_FRAMES_TO_END or pause_s > SAME_NIGHT_S or frame.geometry != self.night.geometry

    def _add_to_night(self, frame: Frame) -> None:
        size = frame.payload.size
        if self.night is None:
            self.night = NightStack(frame.picture, frame.meta, frame.meta, ExtremeStack(size), MeanStack(size))
        night = self.night
        if float(luma(frame.payload, frame.picture)[::SAMPLE_STEP, ::SAMPLE_STEP].mean()) > TOO_BRIGHT:
            night.left_out += 1
            return
        night.trails.add(frame.payload)
        if night.mean.count < MAX_FRAMES:
            night.mean.add(frame.payload)
        night.last = frame.meta


def _restore_night(description: dict[str, Any], trails: NDArray[Any], mean: NDArray[Any]) -> NightStack:
    """Returns the night of a saved state. Raises: ValueError, KeyError, TypeError where the state is not ours."""
    shape = description["geometry"]
    layout = Geometry(**{**shape, "strides": tuple(shape["strides"]), "offsets": tuple(shape["offsets"])})
    fits = trails.ndim == 1 and trails.shape == mean.shape and trails.size >= layout.payload_bytes
    if trails.dtype != np.uint8 or mean.dtype != np.float32 or not fits:
        raise ValueError("accumulators of another type or size")
    night = NightStack(
        layout,
        FrameMeta(**description["first"]),
        FrameMeta(**description["last"]),
        ExtremeStack(trails.size),
        MeanStack(mean.size),
    )
    night.trails.value, night.mean.total = trails, mean
    night.trails.count, night.mean.count, night.left_out = (int(count) for count in description["counts"])
    return night
