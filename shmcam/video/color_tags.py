"""Tags a video stream with the meaning of its colours, so that players show them as the camera meant them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

_RANGES = {"tv": 1, "pc": 2}
_SPACES = {"bt709": (1, 1, 1), "smpte170m": (6, 6, 6), "bt2020nc": (9, 9, 14)}
"""ITU-T H.273 code points of matrix, primaries and transfer, as FFmpeg's enums number them."""


def tag_colors(context: VideoCodecContext, color_space: str, color_range: str) -> None:
    """Sets the tags of an encoder that is not open yet. Names as in `shm_ring.formats.Geometry`."""
    context.color_range = _RANGES[color_range]
    context.colorspace, context.color_primaries, context.color_trc = _SPACES[color_space]
