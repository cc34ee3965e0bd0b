"""The night of one camera in one picture: startrails (brightest) and the night's mean, collected frame by frame.

Memory is two accumulators, however long the night. What was collected is put on disk every so often, so that a kill
costs at most that interval: the next start goes on with the same night.
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
from shmcam.runtime.files import DAMAGE_ERRORS, open_atomic, set_aside

log = logging.getLogger(__name__)

FOLDER = "_night"
"""Below export.base_dir: the state of tonight, and the trails so far as a picture."""
SAME_NIGHT_S = 4 * 3600.0
"""Seconds without night frames after which it is another night (or the camera was off for most of this one)."""
TOO_BRIGHT = 0.35 * 255
"""Mean luma; a passing car or dawn would wash the trails out (0.35 is the limit allsky uses)."""
DAY_FRAMES_TO_END = 3
"""Day frames in a row that end a night; a single one may be a frame whose flag came late."""
SAMPLE_STEP = 8
"""Every 8th pixel of every 8th row tells how bright a frame is."""


@dataclass
class NightStack:
    """What one night has collected so far."""

    geometry: Geometry
    first: FrameMeta
    last: FrameMeta
    trails: ExtremeStack
    mean: MeanStack
    left_out: int = 0
    """Frames that were too bright."""

    @property
    def brightest(self) -> StackResult:
        """The startrails."""
        return StackResult(
            self.trails.to_16_bits(), self.geometry, (self.first, self.last), self.left_out, self.trails.count
        )

    @property
    def average(self) -> StackResult:
        """The mean of the night."""
        return StackResult(
            self.mean.to_16_bits(), self.geometry, (self.first, self.last), self.left_out, self.mean.count
        )

    @property
    def summary(self) -> dict[str, object]:
        """What stands in the pictures' EXIF."""
        hours = (self.last.captured_ns - self.first.captured_ns) / 3600e9
        return {"frames": self.trails.count, "left_out": self.left_out, "hours": round(hours, 3)}


class StarTrails:
    """Collects the night of one camera. Used by one thread."""

    def __init__(self, camera: str, folder: Callable[[], Path]) -> None:
        """`folder`: export.base_dir of this moment."""
        self._camera = camera
        self._folder = folder
        self._kept_ns = 0
        self._day_frames = 0
        self.night: NightStack | None = None

    def add(self, frame: Frame) -> NightStack | None:
        """Take one frame. Returns: the night that has ended, if one has."""
        meta = frame.meta
        dark = bool(meta.flags & Flags.NIGHT)
        self._day_frames = 0 if dark else self._day_frames + 1
        ended = self.night if self._is_over(frame) else None
        if ended is not None:
            self.night = None
        if dark and not meta.flags & Flags.SETTLING:
            self._collect(frame)
        return ended

    def keep(self, now_ns: int, interval_s: float) -> None:
        """Put the state on disk if it is time. Raises: OSError."""
        night = self.night
        if night is None or now_ns - self._kept_ns < interval_s * 1e9:
            return
        self._kept_ns = now_ns
        state, picture = self._places()
        state.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "geometry": asdict(night.geometry),
            "first": asdict(night.first),
            "last": asdict(night.last),
            "counts": [night.trails.count, night.mean.count, night.left_out],
        }
        buffer = io.BytesIO()
        np.savez(buffer, trails=night.trails.value, mean=night.mean.total, facts=np.array(json.dumps(facts)))
        with open_atomic(state, replace=True) as file:
            file.write(buffer.getbuffer())
        with open_atomic(picture, replace=True) as file:
            file.write(to_jpeg(night.trails.value, night.geometry, 90))

    def resume(self) -> None:
        """Go on with the night that a killed process was in. What cannot be read is set aside, and said."""
        state, _ = self._places()
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

    def forget(self) -> None:
        """Remove the state of a night whose pictures are safely in the library."""
        for place in self._places():
            with suppress(FileNotFoundError):
                place.unlink()

    def _places(self) -> tuple[Path, Path]:
        folder = self._folder() / FOLDER
        return folder / f"{self._camera}.npz", folder / f"{self._camera}.jpg"

    def _is_over(self, frame: Frame) -> bool:
        if self.night is None:
            return False
        # By the wall clock as each frame carries it: the sensor's clock begins anew with each boot.
        pause_s = abs(frame.meta.captured_utc_ns - self.night.last.captured_utc_ns) / 1e9
        return self._day_frames >= DAY_FRAMES_TO_END or pause_s > SAME_NIGHT_S or frame.geometry != self.night.geometry

    def _collect(self, frame: Frame) -> None:
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


def _restore_night(facts: dict[str, Any], trails: NDArray[Any], mean: NDArray[Any]) -> NightStack:
    """A night as it was put on disk. Raises: ValueError, KeyError, TypeError where it was not ours."""
    shape = facts["geometry"]
    layout = Geometry(**{**shape, "strides": tuple(shape["strides"]), "offsets": tuple(shape["offsets"])})
    fits = trails.ndim == 1 and trails.shape == mean.shape and trails.size >= layout.payload_bytes
    if trails.dtype != np.uint8 or mean.dtype != np.float32 or not fits:
        raise ValueError("accumulators of another type or size")
    night = NightStack(
        layout,
        FrameMeta(**facts["first"]),
        FrameMeta(**facts["last"]),
        ExtremeStack(trails.size),
        MeanStack(mean.size),
    )
    night.trails.value, night.mean.total = trails, mean
    night.trails.count, night.mean.count, night.left_out = (int(count) for count in facts["counts"])
    return night
