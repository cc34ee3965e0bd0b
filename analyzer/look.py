"""What the analyzer takes from a frame while it is borrowed: a few kilobytes, then the frame is free again."""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.exposure import Gathered, gathered
from analyzer.pixels import column_rgb, detail_plane, luma_grid
from analyzer.score import Bytes, sharpness
from shm_ring import Flags, Frame, FrameMeta


@dataclass(frozen=True, slots=True)
class Look:
    """A frame, looked at."""

    meta: FrameMeta
    width: int
    height: int
    pixels: Bytes
    """Luma on a sparse grid."""
    limited: bool
    """Luma is 16..235."""
    sharpness: float
    column: Bytes | None
    """(height, 3) RGB for the keogram, where one was due."""

    @property
    def own(self) -> Gathered:
        """The frame's own word on its exposure."""
        meta = self.meta
        return gathered(meta.exposure_us, meta.analogue_gain, meta.digital_gain, meta.lux)

    def has(self, flag: Flags) -> bool:
        """Whether capture set this flag."""
        return bool(self.meta.flags & flag)


def look_at(frame: Frame, column_at: float | None) -> Look:
    """Take what is needed. `column_at`: where to cut the keogram's column, 0..1; None: not now.

    The result counts only once the borrow has ended without FrameOverwritten.
    """
    shape = frame.picture
    planes = frame.planes
    limited = shape.color_range == "tv"
    column = None
    if column_at is not None:
        bt709 = shape.color_space == "bt709"
        column = column_rgb(planes, shape.pixel_format, column_at, limited=limited, bt709=bt709)
    return Look(
        meta=frame.meta,
        width=shape.width,
        height=shape.height,
        pixels=luma_grid(planes, shape.pixel_format),
        limited=limited,
        sharpness=sharpness(detail_plane(planes, shape.pixel_format)),
        column=column,
    )
