"""The picture that viewers get while the camera is away: a grey field with the words "No signal" and since when."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from streamer.pictures.jpeg_picture import JpegPicture
from streamer.pictures.variant import Variant

DEFAULT_SIZE = (640, 360)
"""Width and height in pixels while no frame has been seen yet."""

STALE_FRAMES = 3.0
"""The number of frame durations before a picture can be stale, so that night exposures of 6 s do not count as lost."""

_BACKGROUND, _TEXT = 40, 200
_HEIGHT_MAX = 1080


def draw_no_signal(
    variant: Variant, size: tuple[int, int], age_s: float | None, *, frame_id: int, now_utc_ns: int, reason: str = ""
) -> JpegPicture:
    """Returns the picture for one variant.

    `size` is (width, height) of the camera's last frame, `age_s` the age of that frame (None: no frame yet). A `reason`
    is shown instead of the age.
    """
    width, height = _fit_size(variant, size)
    line = reason or ("no picture yet" if age_s is None else f"last picture {_format_age(age_s)} ago")
    return JpegPicture(
        jpeg=_draw_jpeg(width, height, line),
        frame_id=frame_id,
        captured_ns=0,
        captured_utc_ns=now_utc_ns,
        width=width,
        height=height,
        signal=False,
        reason=line,
    )


def _fit_size(variant: Variant, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the variant's size, so that the window of a player does not change."""
    width, height = size
    if variant.width and variant.width < width:
        width, height = variant.width, round(height * variant.width / width)
    if height > _HEIGHT_MAX:
        width, height = round(width * _HEIGHT_MAX / height), _HEIGHT_MAX
    return max(16, width & ~1), max(16, height & ~1)


@lru_cache(maxsize=16)
def _draw_jpeg(width: int, height: int, line: str) -> bytes:
    import cv2  # heavy, and needed only while a camera is away

    plane: NDArray[np.uint8] = np.full((height, width), _BACKGROUND, np.uint8)
    scale = width / 640
    for text, size, row in (("No signal", 1.4, 0.48), (line, 0.7, 0.58)):
        thickness = max(1, round(2 * size * scale))
        extent = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size * scale, thickness)[0][0]
        at = (max(0, (width - extent) // 2), round(height * row))
        cv2.putText(plane, text, at, cv2.FONT_HERSHEY_SIMPLEX, size * scale, (_TEXT,), thickness, cv2.LINE_AA)
    return bytes(simplejpeg.encode_jpeg_yuv_planes(plane, None, None, 70))


def _format_age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
