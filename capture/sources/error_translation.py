"""Makes a camera error of whatever a source raises, so that damaged input or a library's fault never ends the process.

A source reads what others wrote: devices, streams, files, libraries in C. What it does not expect is as good a reason
to close, tell and try again as what it does; the traceback goes to the log once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from capture.sources.base import CameraError, CameraRequest, FrameSource, OpenedSource, Payload, ShotMeta
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)


class SourceFault(CameraError):
    """A source raised what it should not; `__cause__` is that."""


class GuardedSource:
    """A source whose methods raise nothing but CameraError; see capture.sources.base.FrameSource."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source

    @property
    def description(self) -> str:
        """The name of the source."""
        return self._source.description

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        """Starts the camera. Raises: CameraError."""
        with self._guard():
            return self._source.open(request, stop)

    def wait(self, timeout_s: float) -> bool:
        """Waits for the next frame. Raises: CameraError, GeometryChanged."""
        try:  # not `_guard`, here and below: a context made by a generator costs more than all else that this does
            return self._source.wait(timeout_s)
        except CameraError:
            raise
        except Exception as error:
            raise self._fault_of(error) from error

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        """Writes the frame that is ready. Raises: CameraError."""
        try:
            return self._source.write(payload, lores, frame_id)
        except CameraError:
            raise
        except Exception as error:
            raise self._fault_of(error) from error

    def apply(self, request: CameraRequest) -> bool:
        """Changes the camera while it runs. Raises: CameraError."""
        with self._guard():
            return self._source.apply(request)

    def close(self) -> None:
        """Gives the device back; what goes wrong is logged."""
        try:
            with self._guard():
                self._source.close()
        except CameraError as problem:
            log.warning("not closed well: %s", problem)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except CameraError:
            raise
        except Exception as error:
            raise self._fault_of(error) from error

    def _fault_of(self, error: Exception) -> SourceFault:
        return SourceFault(f"{self.description}: {type(error).__name__}: {error}")
