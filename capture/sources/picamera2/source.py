"""The Raspberry Pi's cameras through Picamera2: one copy from the camera's buffer into the slot, then it goes back.

Every mode runs on the same streams and buffers, so that a change of mode costs no gap: controls make the difference.
Where frames are so long that queued buffers would carry the old controls for seconds, the camera is stopped and
started instead; its first frame is then as asked.

Finished frames on their way from Picamera2's thread to the capture loop: a bounded queue that wakes the loop.

Picamera2's own ways of waiting lose requests when they time out (a job that nobody waits for keeps its buffers for
ever); a callback and a queue do not. What does not fit goes back to the camera at once, oldest first.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from capture.deadline import deadline
from capture.sources.base import CameraError, CameraRequest, OpenedSource, Payload, ShotMeta
from capture.sources.picamera2.controls import controls_for, defaults_for
from capture.sources.picamera2.device import CALL_S, STOP_S, close_camera, open_camera
from capture.sources.picamera2.formats import Layout, candidates, layout, shot
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)


class Arrivals:
    """Holds at most `most` requests. `arrived` is called on Picamera2's thread, all else by the capture loop.

    Requests that are not `whole` are passed over: one damaged frame is a lost frame, and when all are damaged the loop
    sees that nothing comes and opens the camera anew.
    """

    def __init__(self, most: int, whole: Callable[[Any], bool], stop: Stop) -> None:
        self._most, self._is_whole, self._stop = most, whole, stop
        self._damaged = 0
        self._requests: deque[Any] = deque()
        self._lock = threading.Lock()
        self._count = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        self.dropped = 0
        """Frames given back unseen because the loop was late; timestamps show them as lost frames too."""

    def on_frame(self, request: Any) -> None:
        """Picamera2's callback for every good frame."""
        if not self._is_whole(request):
            self._damaged += 1
            return
        if self._damaged:
            log.warning("damaged frames passed over n=%d", self._damaged)
            self._damaged = 0
        request.acquire()
        late = None
        with self._lock:
            self._requests.append(request)
            if len(self._requests) > self._most:
                late = self._requests.popleft()
                self.dropped += 1
            else:
                os.eventfd_write(self._count, 1)
        if late is not None:
            late.release()

    def wait(self, timeout_s: float) -> bool:
        """Waits until there is a frame. Returns: whether there is one; False at once when stop is requested."""
        if self._requests:
            return True
        ready, _, _ = select.select([self._count, self._stop.fileno()], [], [], max(0.0, timeout_s))
        return self._count in ready

    def take(self) -> Any | None:
        """The oldest frame, or None. The caller releases it."""
        with self._lock:
            if not self._requests:
                return None
            os.eventfd_read(self._count)
            return self._requests.popleft()

    def clear(self) -> None:
        """Gives everything back."""
        while (request := self.take()) is not None:
            request.release()

    def close(self) -> None:
        """Gives everything back and closes the event descriptor."""
        self.clear()
        os.close(self._count)


IN_FLIGHT = 4
"""Buffers the camera needs to run at full rate; what is left of `buffers` may wait for the loop."""

LIVE_S = 1.0
"""Controls reach the sensor after `buffers` + 2 frames; where that takes longer, starting anew is quicker."""


class PicameraSource:
    """Source "picamera2"; see capture.sources.base.FrameSource."""

    def __init__(self, index: int = 0, *, buffers: int = 6, sync_mode: str = "off") -> None:
        self._index, self._buffers, self._sync_mode = index, buffers, sync_mode
        self._model = "camera"
        self._camera: Any = None
        self._arrivals: Arrivals | None = None
        self._request: CameraRequest | None = None
        self._layouts: dict[str, Layout] = {}
        self._frame_us = 0
        self._in_step = False

    @property
    def description(self) -> str:
        """Sensor and number."""
        return f"{self._model} (picamera2 {self._index})"

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        """Opens, configures and starts the camera. Raises: CameraError, CameraBusy."""
        self.close()
        self._camera, which = open_camera(self._index)
        self._model = which.model
        try:
            with deadline(CALL_S, f"starting {self.description}"):
                self._configure(request)
                refused = self._start(request, stop)
        except (RuntimeError, ValueError, OSError) as error:
            self.close()
            raise error if isinstance(error, CameraError) else CameraError(f"{self.description}: {error}") from error
        shortest_us = self._camera.camera_controls.get("FrameDurationLimits", (0,))[0]
        return OpenedSource(
            self._layouts["main"].geometry,
            lores=self._layouts["lores"].geometry if "lores" in self._layouts else None,
            framerate=min(request.framerate or 1e6, 1e6 / shortest_us) if shortest_us else request.framerate,
            refused=refused,
        )

    def wait(self, timeout_s: float) -> bool:
        """Waits for a frame that Picamera2 calls good."""
        return self._require_open()[1].wait(timeout_s)

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        """One memcpy per stream; the request is back with the camera when this returns."""
        taken = self._require_open()[1].take()
        if taken is None:
            raise CameraError(f"{self.description}: no frame is waiting")
        try:
            self._copy(taken, "main", payload)
            if lores is not None:
                self._copy(taken, "lores", lores)
            metadata = taken.get_metadata()
        finally:
            taken.release()
        self._warn_sync(metadata)
        return shot(metadata)

    def apply(self, request: CameraRequest) -> bool:
        """Changes mode, rate and controls, live or (long frames) by stopping and starting."""
        camera, arrivals = self._require_open()
        old, self._request = self._request, request
        ranges = camera.camera_controls
        controls, refused = controls_for(request, ranges, self._sync_mode)
        controls |= defaults_for(old, request, ranges) if old else {}
        self._report(refused)
        try:
            if self._frame_us * (self._buffers + 2) <= LIVE_S * 1e6:
                with camera.request_lock:  # else a request going back in Picamera2's thread may swallow them
                    camera.set_controls(controls)
                return True
            with deadline(STOP_S, f"stopping {self.description}"):
                camera.stop()
            arrivals.clear()
            with deadline(CALL_S, f"starting {self.description}"):
                camera.set_controls(controls)
                camera.start()
        except RuntimeError as error:
            raise CameraError(f"{self.description}: {error}") from error
        return True

    def close(self) -> None:
        """Gives the camera back; harmless when there is none."""
        camera, self._camera = self._camera, None
        arrivals, self._arrivals = self._arrivals, None
        if camera is not None:
            # Not None: Picamera2's thread looks whether there is a callback and then calls what it finds by then. It
            # would die of that, and stop() waits for it for ever.
            camera.pre_callback = _pass_over
            close_camera(camera, self.description, arrivals.clear if arrivals else None)
        if arrivals is not None:
            arrivals.close()
        self._layouts, self._frame_us = {}, 0

    def _require_open(self) -> tuple[Any, Arrivals]:
        if self._camera is None or self._arrivals is None:
            raise CameraError(f"{self.description} is closed")
        return self._camera, self._arrivals

    def _configure(self, request: CameraRequest) -> None:
        """Settles the streams: the first format of those wanted that the camera agrees to."""
        for name in candidates(request.codec):
            self._camera.configure(self._configuration(request, name))
            agreed = self._camera.camera_configuration()
            if agreed["main"]["format"] == name:
                break
            log.info("%s offers no %s", self.description, name)
        space = agreed["colour_space"]
        self._layouts = {"main": layout(agreed["main"], space)}
        if agreed["lores"] is not None:
            self._layouts["lores"] = layout(agreed["lores"], space)

    def _configuration(self, request: CameraRequest, name: str) -> dict[str, Any]:
        from libcamera import ColorSpace

        width, height = request.width & ~1, request.height & ~1  # libcamera refuses odd sizes
        lores = None
        if request.lores and request.lores[0] <= width and request.lores[1] <= height and name in ("YUV420", "NV12"):
            lores = {"size": (request.lores[0] & ~1, request.lores[1] & ~1), "format": name}
        configuration: dict[str, Any] = self._camera.create_video_configuration(
            main={"size": (width, height), "format": name},
            lores=lores,
            raw=None,  # nobody reads it, and its buffers would take most of a small Pi's contiguous memory
            colour_space=ColorSpace.Sycc(),  # its planes go into a JPEG unchanged
            buffer_count=self._buffers,
            queue=False,  # Picamera2 keeps no frame back: all buffers are the camera's or ours
            display=None,
            encode=None,
        )
        return configuration

    def _start(self, request: CameraRequest, stop: Stop) -> dict[str, str]:
        camera = self._camera
        self._request = request
        self._arrivals = Arrivals(max(1, self._buffers - IN_FLIGHT), self._is_whole, stop)
        camera.pre_callback = self._arrivals.on_frame
        controls, refused = controls_for(request, camera.camera_controls, self._sync_mode)
        camera.set_controls(controls)
        camera.start()
        self._report(refused)
        log.info("%s %s", self.description, camera.camera_configuration()["main"])
        return refused

    def _copy(self, taken: Any, stream: str, target: Payload) -> None:
        from picamera2 import MappedArray

        with MappedArray(taken, stream, reshape=False, write=False) as mapped:
            self._layouts[stream].fill(mapped.array, target)

    def _is_whole(self, taken: Any) -> bool:
        """Tells whether the driver filled every stream's buffer (0: it does not say)."""
        for stream, expected in self._layouts.items():
            planes = taken.request.buffers[taken.stream_map[stream]].metadata.planes
            if 0 < sum(plane.bytes_used for plane in planes) < expected.source_bytes:
                return False
        return True

    def _warn_sync(self, metadata: Mapping[str, Any]) -> None:
        self._frame_us = int(metadata.get("FrameDuration", 0))
        in_step = bool(metadata.get("SyncReady", False))
        if in_step != self._in_step:
            self._in_step = in_step
            log.info("%s %s step with the other camera", self.description, "in" if in_step else "out of")

    def _report(self, refused: Mapping[str, str]) -> None:
        for name, reason in refused.items():
            log.warning("%s: control refused %s=%s", self.description, name, reason)


def _pass_over(_taken: object) -> None:
    """Does nothing: the callback of a camera that is being closed."""
