"""From a frame's bytes to a picture a viewer can be sent: one JPEG of one variant, with what is known of the frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imaging.jpeg import to_jpeg
from service.clock import now_ns
from shm_ring import Flags, Frame
from shm_ring.scores import Score
from streamer.picture import Picture
from streamer.variant import Variant


def encoded(payload: NDArray[np.uint8], frame: Frame, variant: Variant, mark: Score | None) -> Picture:
    """Encode one frame for one variant.

    `payload` is the frame's own, or a stack of the same geometry. `mark` is the analyzer's newest word, None where
    there is none. Counts only once the borrow of `frame` has ended well.
    """
    begun_ns = now_ns()
    geometry, meta = frame.picture, frame.meta
    jpeg = to_jpeg(payload, geometry, variant.quality, gray=variant.gray, width=variant.width or None)
    width = min(variant.width or geometry.width, geometry.width)
    return Picture(
        jpeg=jpeg,
        frame_id=meta.frame_id,
        captured_ns=meta.captured_ns,
        captured_utc_ns=meta.captured_utc_ns,
        width=width,
        height=max(1, round(geometry.height * width / geometry.width)),
        dark_score=mark.dark_score if mark else None,
        night=mark.night if mark else bool(meta.flags & Flags.NIGHT),
        published_ns=frame.published_ns,
        encode_ns=now_ns() - begun_ns,
    )
