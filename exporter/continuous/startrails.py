"""Stacks the night of one camera into two pictures: startrails (brightest) and the night's mean, frame by frame.

Memory is two accumulators, for a night of any length. The state is saved at intervals, so that a kill costs at most one
interval: the next start continues the same night.
"""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.stacking.stack import StackResult
from shm_ring import Flags, Frame, FrameMeta
from shm_ring.color import luma
from shm_ring.formats import Geometry, planes
from shmcam.imaging.accumulate import MAX_FRAMES, ExtremeStack, MeanStack, Payload
from shmcam.imaging.exposure_target import TRAIL_SKY, VERY_SATURATED
from shmcam.imaging.jpeg import to_jpeg
from shmcam.runtime.atomic_files import DAMAGE_ERRORS, open_atomic, open_regular, set_aside
from shmcam.runtime.procfs import boot_id

log = logging.getLogger(__name__)

FOLDER = "_night"
"""The folder below export.base_dir for the state of tonight, and the trails so far as a picture."""
MAX_NIGHT_BYTES = 256 << 20
"""The largest state that is read; that of a 12 MP camera has 90 MB."""
SAME_NIGHT_S = 4 * 3600.0
"""Seconds without night frames after which a new night begins (or the camera was off for most of this one)."""
DAY_FRAMES_TO_END = 3
"""Day frames in a row that end a night; the flag of a single one may be late."""
SAMPLE_STEP = 8
"""Every 8th pixel of every 8th row counts for the brightness of a frame."""
SKY_BLOCKS = 32
"""Blocks of 1/32 of the frame's shorter side measure the sky: moonlight is smooth at that scale, stars are not."""
WHITE, SETTLING = "white", "settling"
"""Why a frame is left out: it shows nothing but white, or the camera was still changing its exposure."""


@dataclass
class NightStack:
    """The stacks of one night so far."""

    geometry: Geometry
    first: FrameMeta
    last: FrameMeta
    trails: ExtremeStack
    mean: MeanStack
    seen: FrameMeta
    """The last frame of the night, used or not."""
    duration_ns: int = 0
    """From the first frame used to the last one seen."""
    left_out: Counter[str] = field(default_factory=Counter)
    """The number of frames left out, by reason."""
    lowered: int = 0
    """The number of frames whose bright sky was lowered (moon, city, dusk)."""

    @property
    def brightest(self) -> StackResult:
        """The startrails so far."""
        return self._result_of(self.trails)

    @property
    def average(self) -> StackResult:
        """The mean of the night so far."""
        return self._result_of(self.mean)

    @property
    def summary(self) -> dict[str, object]:
        """The fields for the pictures' EXIF."""
        return {
            "frames": self.trails.count,
            "left_out": self.left_out.total(),
            "left_out_why": dict(self.left_out),
            "bright_sky_lowered": self.lowered,
            "hours": round(self.duration_ns / 3600e9, 3),
        }

    def describe(self) -> str:
        """Returns the night so far in words."""
        words = f"{self.trails.count} frames"
        if self.left_out:
            words += f", {self.left_out.total()} left out ({format_reasons(self.left_out)})"
        return words + (f", bright sky lowered in {self.lowered}" if self.lowered else "")

    def _result_of(self, stack: ExtremeStack | MeanStack) -> StackResult:
        ends = (self.first, self.last)
        return StackResult(
            stack.to_16_bits(), self.geometry, ends, self.left_out.total(), stack.count, self.duration_ns
        )


def format_reasons(left_out: Mapping[str, int]) -> str:
    """Returns reasons and numbers of frames in words: "white 12, settling 3"."""
    return ", ".join(f"{reason} {count}" for reason, count in left_out.items())


class StarTrails:
    """Stacks the nights of one camera, one after the other. Used by one thread."""

    def __init__(
        self, camera: str, folder: Callable[[], Path], require_disk: Callable[[Path], None] = lambda _folder: None
    ) -> None:
        """`folder` returns the present export.base_dir; `require_disk` raises NoRoom where its disk is not there."""
        self._camera = camera
        self._folder = folder
        self._require_disk = require_disk
        self._saved_ns = 0
        self._day_frames = 0
        self._boot_id = boot_id()
        self._seen_boot_id = self._boot_id
        self.night: NightStack | None = None

    def add(self, frame: Frame) -> NightStack | None:
        """Adds one frame. Returns: the night that this frame ends, if it does."""
        meta = frame.meta
        is_night = bool(meta.flags & Flags.NIGHT)
        self._day_frames = 0 if is_night else self._day_frames + 1
        ended = self.night if self._is_over(frame) else None
        if ended is not None:
            self.night = None
        if is_night:
            self._add_to_night(frame)
        return ended

    def save_state(self, now_ns: int, interval_s: float) -> bool:
        """Saves the state if it is time. Returns: whether it did. Raises: OSError, NoRoom."""
        night = self.night
        if night is None or now_ns - self._saved_ns < interval_s * 1e9:
            return False
        self._saved_ns = now_ns
        state, picture = self._paths
        self._require_disk(state.parent)
        state.parent.mkdir(parents=True, exist_ok=True)
        description = {
            "geometry": asdict(night.geometry),
            "first": night.first._asdict(),
            "last": night.last._asdict(),
            "seen": night.seen._asdict(),
            "boot_id": self._boot_id,
            "duration_ns": night.duration_ns,
            "counts": [night.trails.count, night.mean.count, night.lowered],
            "left_out": dict(night.left_out),
        }
        buffer = io.BytesIO()
        np.savez(buffer, trails=night.trails.value, mean=night.mean.total, facts=np.array(json.dumps(description)))
        with open_atomic(state, replace=True) as file:
            file.write(buffer.getbuffer())
        with open_atomic(picture, replace=True) as file:
            file.write(to_jpeg(night.trails.value, night.geometry, 90))
        return True

    def load_state(self) -> None:
        """Continues the night of a killed process. A damaged state is set aside, and logged."""
        state, _ = self._paths
        try:
            with open_regular(state, MAX_NIGHT_BYTES) as file, np.load(file, allow_pickle=False) as stored:
                facts = json.loads(str(stored["facts"]))
                self.night = _restore_night(facts, stored["trails"], stored["mean"])
                self._seen_boot_id = str(facts.get("boot_id", ""))
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
        """Deletes the state of a night whose pictures are saved; that of a night which goes on is due at once."""
        self._saved_ns = 0
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
        is_paused = abs(self._pause_ns(self.night.seen, frame.meta)) > SAME_NIGHT_S * 1e9
        return self._day_frames >= DAY_FRAMES_TO_END or is_paused or frame.geometry != self.night.geometry

    def _pause_ns(self, before: FrameMeta, now: FrameMeta) -> int:
        """Returns the time between two frames.

        By the sensor's clock, because the wall clock may be set at any time; after a reboot the sensor's clock has
        begun anew, and the wall clock is all there is.
        """
        pause_ns = now.captured_ns - before.captured_ns
        if self._seen_boot_id != self._boot_id or pause_ns < 0:
            return now.captured_utc_ns - before.captured_utc_ns
        return pause_ns

    def _add_to_night(self, frame: Frame) -> None:
        size, meta = frame.payload.size, frame.meta
        if self.night is None:
            self.night = NightStack(frame.picture, meta, meta, ExtremeStack(size), MeanStack(size), meta)
        night = self.night
        pause_ns = max(0, self._pause_ns(night.seen, meta))
        night.seen, self._seen_boot_id = meta, self._boot_id
        night.duration_ns += pause_ns if night.trails.count else 0
        if (reason := _why_useless(frame)) is not None:
            night.left_out[reason] += 1
            return
        payload = np.asarray(frame.payload)
        lowered = lower_sky(payload, frame.picture)
        night.lowered += lowered is not payload
        night.first = night.first if night.trails.count else meta
        night.trails.add(lowered)
        if night.mean.count < MAX_FRAMES:
            night.mean.add(payload)
        night.last = meta


def _why_useless(frame: Frame) -> str | None:
    """Returns why a night frame cannot add to the trails; None: it can."""
    if frame.meta.flags & Flags.SETTLING:
        return SETTLING
    sample = luma(frame.payload, frame.picture)[::SAMPLE_STEP, ::SAMPLE_STEP]
    white = 230 if frame.picture.color_range == "tv" else 250
    return WHITE if float((sample >= white).mean()) >= VERY_SATURATED else None


def lower_sky(payload: Payload, geometry: Geometry) -> Payload:
    """Returns the frame with its bright sky lowered to TRAIL_SKY; the same array where no part of it is brighter.

    What is lowered is the mean of blocks, smoothed: moonlight, the glow of a city, dusk. Stars are smaller than a
    block and keep their height above it, so that one bright hour does not hide the trails of a night.
    """
    grey = luma(payload, geometry)
    block = max(8, min(grey.shape) // SKY_BLOCKS)
    small = (max(1, grey.shape[1] // block), max(1, grey.shape[0] // block))
    sky = cv2.blur(cv2.resize(grey, small, interpolation=cv2.INTER_AREA), (3, 3)).astype(np.int16)
    limit = round(16 + TRAIL_SKY * 219 / 255) if geometry.color_range == "tv" else round(TRAIL_SKY)
    excess = np.clip(sky - limit, 0, 255).astype(np.uint8)
    if not excess.any():
        return payload
    result = payload.copy()
    plane = planes(result, geometry)[0]
    lowered = cv2.resize(excess, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
    plane[...] = cv2.subtract(plane, lowered if plane.ndim == 2 else cv2.merge([lowered] * 3))
    return result


def _restore_night(description: dict[str, Any], trails: NDArray[Any], mean: NDArray[Any]) -> NightStack:
    """Returns the night of a saved state, also of an earlier version, which had four fields less.

    Raises: ValueError, KeyError, TypeError where the state is not ours.
    """
    shape = description["geometry"]
    lists = {name: tuple(value) for name, value in shape.items() if isinstance(value, list)}
    layout = Geometry(**{**shape, **lists})
    fits = trails.ndim == 1 and trails.shape == mean.shape and trails.size >= layout.payload_bytes
    if trails.dtype != np.uint8 or mean.dtype != np.float32 or not fits:
        raise ValueError("accumulators of another type or size")
    first, last = FrameMeta(**description["first"]), FrameMeta(**description["last"])
    frames, mean_frames, third = (int(count) for count in description["counts"])
    # Before there were reasons, the third number was that of the frames left out.
    left_out, lowered = (description["left_out"], third) if "left_out" in description else ({"unknown": third}, 0)
    night = NightStack(
        layout,
        first,
        last,
        ExtremeStack(trails.size),
        MeanStack(mean.size),
        FrameMeta(**description.get("seen", description["last"])),
        int(description.get("duration_ns", max(0, last.captured_utc_ns - first.captured_utc_ns))),
        Counter({str(reason): int(count) for reason, count in left_out.items() if count}),
        lowered,
    )
    night.trails.value, night.mean.total = trails, mean
    night.trails.count, night.mean.count = frames, mean_frames
    return night
