"""One frame from the source into the rings: masked, with its metadata, and downscaled for the lores ring.

The polygons of [privacy] are blackened in place, before any process can read the frame. The small frame is made from
the full one, plane by plane, straight into its slot.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.desired_request import DesiredRequest, period_s_of
from capture.drops_and_settling import HISTORY, SAME_RATE, DropCounter, SettlingFlags, nominal_duration_us, nominal_rate
from capture.rings import Rings
from capture.sources.base import CameraError, CameraRequest, FrameSource, OpenedSource, Payload, ShotMeta
from shm_ring import Flags, FrameMeta, RingWriter
from shm_ring.errors import MetadataOutOfRange
from shm_ring.formats import Geometry, geometry, planes
from shmcam.runtime.clock import RateMeter, now_ns, utc_offset_ns


def lores_geometry_of(full: Geometry, width: int, height: int) -> Geometry:
    """Returns the geometry of the small stream: same format and colours, never larger than the full one."""
    return geometry(
        full.pixel_format,
        min(width, full.width),
        min(height, full.height),
        color_space=full.color_space,
        color_range=full.color_range,
        sample_aspect=full.sample_aspect,
    )


def downscale(source: NDArray[np.uint8], full: Geometry, target: NDArray[np.uint8], small: Geometry) -> None:
    """Averages areas of each plane of `source` into `target`; no plane is copied on the way."""
    for large, little in zip(planes(source, full), planes(target, small), strict=True):
        size = (little.shape[1], little.shape[0])
        cv2.resize(large, size, dst=little, interpolation=cv2.INTER_AREA)


Corner = tuple[float, float]


def mask_polygons(payload: NDArray[np.uint8], geometry: Geometry, polygons: Sequence[Sequence[Corner]]) -> None:
    """Fills `polygons` (corners 0..1 of width and height) with black in every plane.

    Edges belong to the polygon, and chroma is widened by one sample, so that no colour of a masked pixel is left.
    """
    black = 16 if geometry.color_range == "tv" else 0
    for index, plane in enumerate(planes(payload, geometry)):
        chroma = index > 0
        corners = [_pixels(polygon, plane.shape) for polygon in polygons]
        value = (128, 128, 128) if chroma else (black, black, black)
        cv2.fillPoly(plane, corners, value)
        if chroma:
            cv2.polylines(plane, corners, isClosed=True, color=value, thickness=3)


def _pixels(polygon: Sequence[Corner], shape: tuple[int, ...]) -> NDArray[np.int32]:
    size = np.array([shape[1] - 1, shape[0] - 1])
    return np.asarray(np.rint(np.asarray(polygon, np.float64) * size), np.int32)


OFFSET_AGE_NS = 1_000_000_000
"""Age up to which a reading of the wall clock's offset is used."""

DEFAULT_RATE = 30.0
RATE_INTERVALS = 60
"""Intervals over which the frame rate is measured."""


class FramePublisher:
    """Publishes the frames of a source from its open to its close. Raises what the rings' `fit` raises."""

    def __init__(
        self, source: FrameSource, opened: OpenedSource, request: CameraRequest, desired: DesiredRequest, rings: Rings
    ) -> None:
        self._source, self._desired, self._rings = source, desired, rings
        self.description = source.description
        self.request = request
        """The last request to the camera."""
        self.drops = DropCounter(from_gaps=not opened.counts_losses)
        self.settling = SettlingFlags()
        self.settling.begin(request)
        self.frames = 0
        self.shot = ShotMeta()
        """The newest frame's own figures."""
        self.rate = RateMeter(RATE_INTERVALS)
        self._last_ns = 0
        self._offset_ns, self._offset_at_ns = utc_offset_ns(), now_ns()
        self.opened = opened
        """The stream of the next frame."""
        self.is_fresh = True
        """No frame of that stream was published yet."""
        self.fit(opened)

    def fit(self, opened: OpenedSource) -> None:
        """Makes or keeps the rings for the stream that the source delivers from now on."""
        self.is_fresh = self.is_fresh or opened is not self.opened
        self.opened = opened
        self._full, self._bytes = opened.geometry, opened.geometry.payload_bytes
        self._planned_rate = max(opened.framerate or self.request.framerate or DEFAULT_RATE, self._measured_rate)
        self._main = self._rings.fit("main", self._full, self._desired.ring.slots_of("main", self._planned_rate))
        self._ready_made: tuple[RingWriter, Geometry] | None = None
        """The small stream that the camera makes itself."""
        self._scaled: tuple[RingWriter, Geometry] | None = None
        """The small stream that is made here."""
        if self.request.lores:
            small = opened.lores or lores_geometry_of(self._full, *self.request.lores)
            slots = self._desired.ring.slots_of("lores", self._planned_rate)
            writer = self._rings.fit("lores", small, slots)
            if opened.lores is not None:
                self._ready_made = writer, small
            else:
                self._scaled = writer, small
        else:
            self._rings.drop("lores")

    @property
    def has_outgrown_rings(self) -> bool:
        """True, now and then, if more frames come than were declared: the rings hold less than [ring] seconds."""
        return bool(self.frames) and not self.frames % HISTORY and self._measured_rate > SAME_RATE * self._planned_rate

    @property
    def period_s(self) -> float:
        """The longest time that a frame may normally take, in seconds."""
        return max(period_s_of(self.request, self.opened.framerate), self._told_ns / 1e9, self.drops.period_ns / 1e9)

    @property
    def _told_ns(self) -> int:
        """The newest frame's own duration; 0: the source does not tell it."""
        return self.shot.frame_duration_us * 1000 if self.opened.tells_duration else 0

    @property
    def _measured_rate(self) -> float:
        """Frames per second that come; 0 = not known."""
        period_ns = self._told_ns or (self.drops.period_ns if self.drops.is_measured else 0.0)
        return nominal_rate(1e9 / period_ns, self.opened.framerate) if period_ns else 0.0

    def change(self, request: CameraRequest) -> None:
        """Takes over a request that the camera applied while running."""
        self.request = request
        self.settling.begin(request)
        self.resume()

    def resume(self) -> None:
        """Goes on after a pause; the gap is no loss."""
        self.drops.restart()
        self.rate.clear()

    def publish_frame(self) -> FrameMeta:
        """Moves the frame that is ready from the source to the rings. Raises: CameraError."""
        frame_id = self._main.next_frame_id
        try:
            with self._main.slot() as slot:
                if self._ready_made is None:
                    self.shot = self._source.write(slot.payload, frame_id=frame_id)
                    meta = self._make_meta(frame_id)
                else:
                    meta = self._write_main_and_lores(slot.payload, *self._ready_made, frame_id)
                if self._desired.polygons:
                    mask_polygons(slot.payload, self._full, self._desired.polygons)
                slot.meta, slot.geometry, slot.used_bytes = meta, self._full, self._bytes
            if self._scaled is not None:
                writer, small = self._scaled
                with writer.slot() as little:  # the full frame is out already; nobody overwrites it but this process
                    downscale(slot.payload, self._full, little.payload, small)
                    little.meta, little.geometry = meta, small
        except MetadataOutOfRange as error:  # whatever a source says of its frame, it ends no process
            raise CameraError(f"{self.description}: {error}") from error
        self.frames += 1
        self.is_fresh = False
        return meta

    def _write_main_and_lores(self, payload: Payload, writer: RingWriter, small: Geometry, frame_id: int) -> FrameMeta:
        """Writes the camera's own small stream just before the full frame; both bear the same number."""
        with writer.slot() as little:
            self.shot = self._source.write(payload, little.payload, frame_id)
            if self._desired.polygons:
                mask_polygons(little.payload, small, self._desired.polygons)
            little.meta, little.geometry = self._make_meta(frame_id), small
        return little.meta

    def _make_meta(self, frame_id: int) -> FrameMeta:
        shot = self.shot
        captured_ns = max(shot.captured_ns or now_ns(), self._last_ns + 1)  # readers search by time: never backwards
        self._last_ns = captured_ns
        self.rate.add(captured_ns)
        duration_us = shot.frame_duration_us
        if shot.is_seam:
            self.drops.restart()
        own_us = duration_us if self.opened.tells_duration else 0
        missing = self.drops.count(captured_ns, own_us, shot.lost_before)
        if not self.opened.tells_duration:
            duration_us = nominal_duration_us(self.drops.period_ns, duration_us)
        flags = shot.flags | (Flags.MASKED if self._desired.polygons else 0)
        if shot.frame_id < 0:  # a replayed frame keeps what was said of it
            settling = self.settling.update(shot)
            flags |= (Flags.SETTLING if settling else 0) | (Flags.NIGHT if self._desired.night else 0)
        return FrameMeta(
            frame_id=shot.frame_id if shot.frame_id >= 0 else frame_id,
            captured_ns=captured_ns,
            captured_utc_ns=shot.captured_utc_ns or captured_ns + self._utc_offset_ns(),
            exposure_us=shot.exposure_us,
            analogue_gain=shot.analogue_gain,
            digital_gain=shot.digital_gain,
            lux=shot.lux,
            colour_temperature_k=shot.colour_temperature_k,
            frame_duration_us=duration_us,
            flags=int(flags),
            dropped_before=missing,
            total_dropped=self.drops.total,
        )

    def _utc_offset_ns(self) -> int:
        now = now_ns()
        if now - self._offset_at_ns > OFFSET_AGE_NS:
            self._offset_ns, self._offset_at_ns = utc_offset_ns(), now
        return self._offset_ns
