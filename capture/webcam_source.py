"""A V4L2 webcam: FFmpeg's stream of it, with the device's own controls beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from capture.address import Address
from capture.live import LiveSource
from capture.source import CameraError, Opened, Payload, Request, Shot
from capture.v4l2_controls import Controls
from service.clock import now_ns
from service.stop import Stop

READ_BACK_NS = 500_000_000
"""The exposure is asked for so often, not with every frame: over USB each question takes a millisecond."""


class WebcamSource(LiveSource):
    """Source "v4l2"; see capture.source.FrameSource."""

    def __init__(self, address_for: Callable[[Request], Address], controls: Controls) -> None:
        super().__init__("v4l2", Address(controls.path, controls.path))
        self._address_for, self._controls = address_for, controls
        self._rate = 0.0
        self._exposure_us, self._read_ns = 0, 0

    def open(self, request: Request, stop: Stop) -> Opened:
        """Start the stream, then set the controls: some drivers reset them when streaming begins."""
        self._address, self._rate = self._address_for(request), request.framerate
        opened = super().open(replace(request, every=1), stop)  # it was asked for the lower rate itself
        try:
            self._controls.open()
        except OSError as error:
            self.close()
            raise CameraError(f"{self.description}: {error}") from error
        return replace(opened, refused=self._controls.apply(request))

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> Shot:
        """Copy or convert the picture; the exposure is what the device said last."""
        shot = super().write(payload, lores, frame_id)
        if now_ns() - self._read_ns > READ_BACK_NS:
            self._exposure_us, self._read_ns = self._controls.exposure_us(), now_ns()
        return replace(shot, exposure_us=self._exposure_us)

    def apply(self, request: Request) -> bool:
        """Set the controls; another frame rate needs the stream begun anew."""
        if request.framerate != self._rate:
            return False
        self._controls.apply(request)
        self._read_ns = 0
        return True

    def close(self) -> None:
        """End the stream and let go of the node."""
        super().close()
        self._controls.close()
