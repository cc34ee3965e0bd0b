"""The recorder's overlay on the live picture: the same text in the same place, drawn on a copy, never in the ring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shm_ring import Frame
from shm_ring.formats import planes
from shmcam.config.settings import Settings
from shmcam.imaging import text_overlay

PREFIX = "recorder.overlay."


class Caption:
    """What one camera's live pictures bear; follows the settings as they change."""

    def __init__(self, camera: str, settings: Callable[[], Settings]) -> None:
        self._camera, self._settings = camera, settings
        self._read: Settings | None = None
        self._keys: Mapping[str, Any] = {}
        self._overlay: text_overlay.Overlay | None = None

    def saw(self, frame: Frame) -> None:
        """Count a frame for the rate that is shown, whether a picture of it is wanted or not."""
        self._look()
        if self._overlay is not None:
            self._overlay.count_frame(frame.meta.captured_ns)

    def on(self, payload: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
        """The payload with the text on a copy of it, or the payload itself while no overlay is wished for."""
        self._look()
        if self._overlay is None:
            return payload
        own, meta = payload.copy(), frame.meta
        first = planes(own, frame.picture)[0]
        for plane in [first] if first.ndim == 2 else np.moveaxis(first, 2, 0):  # packed colours: all three alike
            self._overlay.draw(plane, meta.frame_id, meta.captured_ns, meta.captured_utc_ns)
        return own

    def _look(self) -> None:
        settings = self._settings()
        if settings is self._read:
            return
        self._read, keys = settings, wished(settings, self._camera)
        if keys != self._keys:
            self._keys = keys
            self._overlay = text_overlay.overlay_of(keys) if keys["enable"] else None


def wished(settings: Settings, camera: str) -> dict[str, Any]:
    """The keys of [recorder.overlay] for a camera; the table is the recorder's, so it is read by name."""
    return {
        key.path.removeprefix(PREFIX): settings.value(f"cameras.{camera}.{key.path}")
        for key in settings.schema()
        if key.path.startswith(PREFIX)
    }
