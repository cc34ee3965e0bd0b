"""The synthetic camera: seeded, deterministic, with a sensor, a day, stars, something that moves, and a frame number.

Its frames are yuv420p or nv12, full-range BT.601 (what JPEG holds), or RGB on request, at its own exact pace.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

import cv2
import numpy as np

from capture.settings import SyntheticSettings
from capture.sources.base import CameraError, CameraRequest, OpenedSource, Payload, ShotMeta
from capture.sources.synthetic.render import FrameRenderer, RenderedFrame
from capture.sources.synthetic.scene import Scene, illuminance_lux
from capture.sources.synthetic.sensor import Exposure, PictureControls, Sensor
from capture.sources.video_file import Pacer
from shm_ring.color import to_bgr
from shm_ring.formats import Geometry, geometry, planes
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop

FORMATS = {"auto": "yuv420p", "yuv420": "yuv420p", "nv12": "nv12", "rgb888": "bgr24", "bgr888": "rgb24"}
"""camera.codec to what lies in memory (libcamera names RGB from the highest byte)."""

CONTROLS = ("AeEnable", "ExposureTime", "AnalogueGain", "ExposureValue", "Brightness", "Contrast", "Saturation")

UNPACED_PERIOD_US = 33_333
"""Simulated time per frame when frames come as fast as possible."""


class SyntheticSource:
    """Source "synthetic"; see capture.sources.base.FrameSource."""

    def __init__(self, settings: SyntheticSettings) -> None:
        self._settings = settings
        self._sensor = Sensor()
        self._pacer = Pacer()
        self._stop: Stop | None = None
        self._develop: FrameRenderer | None = None
        self._count = 0
        self._elapsed_s = 0.0

    @property
    def description(self) -> str:
        """Name and seed."""
        return f"synthetic seed={self._settings.seed} scene={self._settings.scene}"

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        """Prepares pictures of the size asked for. Raises: CameraError for a format it does not make."""
        if request.codec not in FORMATS:
            raise CameraError(f"camera.codec {request.codec!r}: the synthetic camera makes {', '.join(FORMATS)}")
        self._stop, own = stop, self._settings
        scenery = Scene(request.width, request.height, own.seed)
        self._develop = FrameRenderer(scenery, noise=own.noise, code=own.code, moving=own.moving)
        self._geometry = geometry(FORMATS[request.codec], request.width, request.height)
        self._canvas = geometry("yuv420p", request.width, request.height)
        self._scratch = np.empty(self._canvas.payload_bytes, np.uint8)
        self.apply(request)
        self._upcoming = self._exposure_next()
        with suppress(AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)  # drawing the scene took several times the memory of the scene
        self._pacer = Pacer()
        refused = {name: "not simulated" for name in request.controls if name not in CONTROLS}
        return OpenedSource(self._geometry, framerate=request.framerate, refused=refused)

    def apply(self, request: CameraRequest) -> bool:
        """Takes over mode, rate and controls; exposure and gain act CONTROL_LAG frames later."""
        controls, still = request.controls, request.mode == "still"
        self._period_us = 1e6 / request.framerate if request.framerate else 0.0
        self._sensor.longest_us = (
            int(request.exposure_us if request.mode == "slow_video" else self._period_us) or 16_666
        )
        self._sensor.fixed_us = request.exposure_us if still else int(controls.get("ExposureTime", 0))  # type: ignore[arg-type]
        self._sensor.fixed_gain = request.gain if still else float(controls.get("AnalogueGain", 0))  # type: ignore[arg-type]
        self._sensor.automatic = bool(controls.get("AeEnable", True))
        self._sensor.stops = float(controls.get("ExposureValue", 0))  # type: ignore[arg-type]
        names = PictureControls.__struct_fields__
        look = {name: float(controls[name.title()]) for name in names if name.title() in controls}  # type: ignore[arg-type]
        self._look = PictureControls(**look)
        return True

    def wait(self, timeout_s: float) -> bool:
        """Sleeps until the next frame is due."""
        if not self._pacer.due_ns:
            self._pacer.begin(now_ns())
        due_s = self._pacer.wait_ns(now_ns()) / 1e9
        if due_s <= 0:
            return True
        return self._stop is not None and not self._stop.wait(min(due_s, timeout_s)) and due_s <= timeout_s

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        """Draws the frame that is due."""
        if self._develop is None:
            raise CameraError("the synthetic camera is closed")
        exposure, lux = self._upcoming, self._lux()
        period_us = self._frame_us(exposure)
        moment = RenderedFrame(frame_id, self._count, self._elapsed_s, lux, exposure, self._look)
        self._draw(self._develop, payload, moment)
        self._count += 1
        self._upcoming = self._exposure_next()
        skipped = self._pacer.skipped
        captured_ns = self._pacer.advance(now_ns(), self._frame_us(self._upcoming) * 1e3)
        self._elapsed_s += (1 + self._pacer.skipped - skipped) * (period_us or UNPACED_PERIOD_US) / 1e6
        return ShotMeta(
            captured_ns=captured_ns,
            exposure_us=exposure.exposure_us,
            analogue_gain=exposure.gain,
            lux=lux,
            frame_duration_us=round(period_us),
        )

    def close(self) -> None:
        """Forgets the pictures."""
        self._develop = None

    def _draw(self, develop: FrameRenderer, payload: Payload, moment: RenderedFrame) -> None:
        kind = self._geometry.pixel_format
        direct = kind == "yuv420p"
        target: tuple[Payload, Geometry] = (payload, self._geometry) if direct else (self._scratch, self._canvas)
        bright, blue, red = planes(*target)
        out = planes(payload, self._geometry)
        develop.luma(out[0] if kind == "nv12" else bright, moment)
        develop.chroma(blue, red, moment)
        if kind == "nv12":
            cv2.merge([blue, red], dst=out[1])
        elif not direct:
            picture = to_bgr(self._scratch, self._canvas)
            np.copyto(out[0], picture if kind == "bgr24" else picture[..., ::-1])

    def _lux(self) -> float:
        own = self._settings
        return illuminance_lux(own.scene, self._elapsed_s, own.day_length_s, own.start_hour)

    def _exposure_next(self) -> Exposure:
        measured = self._develop.measure_signal(self._lux(), self._sensor.now) if self._develop else 0.0
        return self._sensor.next_frame(measured)

    def _frame_us(self, exposure: Exposure) -> float:
        """Distance between frames: the exposure where that is longer than the frame rate's period; 0 = no pace."""
        return max(self._period_us, exposure.exposure_us) if self._period_us else 0.0
