"""The recorder's overlay on live pictures: the same text in the same place, drawn on a copy, never into the ring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shm_ring import Frame
from shm_ring.formats import planes
from shmcam.config.settings import Settings
from shmcam.imaging.text_overlay import Overlay, overlay_of

PREFIX = "recorder.overlay."


class Caption:
    """The overlay of one camera's live pictures; it follows changes of the settings."""

    def __init__(self, camera: str, get_settings: Callable[[], Settings]) -> None:
        self._camera, self._get_settings = camera, get_settings
        self._last_settings: Settings | None = None
        self._keys: Mapping[str, Any] = {}
        self._overlay: Overlay | None = None

    def count_frame(self, frame: Frame) -> None:
        """Counts a frame for the rate that is shown, even if no picture of it is needed."""
        self._update_overlay()
        if self._overlay is not None:
            self._overlay.count_frame(frame.meta)

    def draw(self, payload: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
        """Returns a copy of the payload with the text on it; the payload itself while the overlay is off."""
        self._update_overlay()
        if self._overlay is None:
            return payload
        copy = payload.copy()
        first = planes(copy, frame.picture_geometry)[0]
        for plane in [first] if first.ndim == 2 else np.moveaxis(first, 2, 0):  # packed colours: all three get the same
            self._overlay.draw(plane, frame.meta)
        return copy

    def _update_overlay(self) -> None:
        settings = self._get_settings()
        if settings is self._last_settings:
            return
        self._last_settings, keys = settings, overlay_keys_of(settings, self._camera)
        if keys != self._keys:
            self._keys = keys
            self._overlay = overlay_of(keys) if keys["enable"] else None


def overlay_keys_of(settings: Settings, camera: str) -> dict[str, Any]:
    """Returns the keys of [recorder.overlay] for a camera; the table is the recorder's, so it is read by name."""
    return {
        key.path.removeprefix(PREFIX): settings.value(f"cameras.{camera}.{key.path}")
        for key in settings.schema()
        if key.path.startswith(PREFIX)
    }
