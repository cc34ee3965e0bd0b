"""The seam between capture and cameras: FrameSource, and the values that cross it.

The loop owns the ring and the clock; a source owns the device. One frame takes two calls, so that a slot is never
held open while the camera makes up its mind:

    if source.wait(timeout_s):                 # a frame is ready; the slot is not touched before
        with writer.slot() as slot:
            shot = source.write(slot.payload)  # straight into shared memory; the device's buffer is given back at once

Errors: CameraError means "this device, this time": the loop closes the source, reports it and opens it again with
backoff. Anything else that a source raises becomes one, with its traceback in the log (`guarded`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from shm_ring.formats import Geometry
from shmcam.runtime.stop import Stop

ModeName = Literal["video", "still", "slow_video"]
ControlValue = bool | int | float | tuple[float, ...]
Payload = NDArray[np.uint8]


class CameraError(OSError):
    """The camera cannot deliver now; closing, waiting and opening it again may help."""

    def __str__(self) -> str:
        """Returns the reason without the numbers of FFmpeg and the system, which the words beside them say better."""
        return re.sub(r"\[Errno -?\d+\] ", "", super().__str__())


class CameraBusy(CameraError):
    """Another process holds the camera; the message names it."""


class GeometryChanged(CameraError):
    """The frame that is ready has another size or format; the source stays open and goes on with it.

    The loop makes new generations of the rings for `geometry` and writes the frame into them.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(f"frames are now {geometry.width}x{geometry.height} {geometry.pixel_format}")
        self.geometry = geometry


class EndOfStream(CameraError):
    """A file that does not loop has ended; nothing more will come."""


class StillOpening(CameraError):
    """The camera answers but has no picture yet; the message says what is waited for. `open` again waits on."""


class CameraRequest(Struct, frozen=True):
    """The desired state of the camera. A source comes as near as it can and reports it in OpenedSource and ShotMeta."""

    width: int
    """Pixels of the main stream. Files and network cameras keep their own size."""
    height: int
    framerate: float
    """Frames per second in video mode; 0 = as fast as the camera goes."""
    codec: str = "auto"
    """camera.codec: format asked of the camera, in Picamera2's names in lower case; auto prefers yuv420."""
    mode: ModeName = "video"
    """video: auto exposure at `framerate`. still: `exposure_us` and `gain`, one after the other.
    slow_video: auto exposure, frames as long as `exposure_us` allowed."""
    exposure_us: int = 0
    """still: the exposure, slow_video: the longest one allowed; 0 in video mode."""
    gain: float = 0.0
    """Analogue gain in still mode; 0 = automatic."""
    lores: tuple[int, int] | None = None
    """Size of a second, smaller stream, wanted if the camera can make one itself."""
    controls: Mapping[str, ControlValue] = {}
    """libcamera control names to values, from [camera.controls]; only those the user set."""
    every: int = 1
    """Files and network cameras, whose rate is their own: take only every so many-th picture."""


class OpenedSource(Struct, frozen=True):
    """The stream that an open source delivers; GeometryChanged brings another one."""

    geometry: Geometry
    lores: Geometry | None = None
    """Set if the camera itself delivers the smaller stream asked for; None: the loop scales."""
    framerate: float = 0.0
    """Frames per second as negotiated, declared or measured; 0 = unknown."""
    tells_duration: bool = True
    """`frame_duration_us` is each frame's own. False: it is the declared one, and the rate that comes beats it."""
    counts_losses: bool = False
    """The source tells in `ShotMeta.lost_before` all that was lost; a frame that comes late is then no loss."""
    refused: Mapping[str, str] = {}
    """Controls that were asked for and are not there, with the reason."""


class ShotMeta(NamedTuple):  # one for every frame: a quarter of what a frozen dataclass takes to make
    """The metadata of the frame just written. 0 (NaN for lux) = unknown."""

    captured_ns: int = 0
    """Sensor timestamp, CLOCK_BOOTTIME; 0: the source has no clock, the loop takes its own."""
    exposure_us: int = 0
    analogue_gain: float = 0.0
    digital_gain: float = 1.0
    lux: float = float("nan")
    colour_temperature_k: int = 0
    frame_duration_us: int = 0
    """Nominal distance to the next frame, of this very frame where the camera tells it."""
    lost_before: int = 0
    """Frames the device itself says it lost before this one (a gap in its own counter)."""
    is_seam: bool = False
    """The device's clock was set before this frame, or its stream began anew: the gap before it tells nothing."""
    captured_utc_ns: int = 0
    """Replayed frames bring their wall clock along; 0: derived from captured_ns."""
    frame_id: int = -1
    """Replayed frames bring their number along; -1: the ring's next."""
    flags: int = 0
    """shm_ring.Flags that replayed frames bring along."""


class FrameSource(Protocol):
    """One camera. Not thread-safe: the capture loop is its only user."""

    @property
    def description(self) -> str:
        """The name for logs and status: `synthetic seed=1`, `imx708 (picamera2 0)`."""

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        """Starts the camera. Raises: CameraError; StillOpening, after which `open` is called again.

        After it, `close` must be harmless, opened or not.
        """

    def wait(self, timeout_s: float) -> bool:
        """Waits for the next frame. Returns: whether one is ready. Raises: CameraError, GeometryChanged.

        A source without a clock of its own (file, synthetic) keeps time here, by absolute deadlines (`video_file`).
        May return later than `timeout_s` only if the device's driver hangs: then the watchdog ends the process.
        """

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        """Copies or converts the frame that is ready into `payload` (1-D, at least geometry.payload_bytes).

        `lores` is given if and only if `OpenedSource.lores` was set. `frame_id` is the number the ring gives this
        frame; the synthetic camera draws it into the picture. The device's buffer is released before it returns.
        Raises: CameraError for a frame that is short, broken or of another size; the slot is then abandoned.
        """

    def apply(self, request: CameraRequest) -> bool:
        """Changes mode, frame rate and controls while running. Returns: False if that needs close and open.

        Only asked for requests of the same size and codec. The frames that follow may still be the old way: what
        counts is the exposure and gain of each ShotMeta.
        """

    def close(self) -> None:
        """Gives the device back. Never raises; may be called at any time and more than once."""
