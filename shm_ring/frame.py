"""One frame as a reader sees it: what travels with it, and numpy views of its pixels."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from shm_ring import color, formats, layout
from shm_ring.errors import FrameOverwritten, RingError
from shm_ring.formats import Geometry
from shm_ring.metadata import FrameFields, FrameMeta, meta_of, unpack_geometry

if TYPE_CHECKING:
    from types import TracebackType

Pixels = NDArray[np.uint8]
_TIME = struct.Struct("@q")
_CAPTURED_AT, _PUBLISHED_AT = (
    layout.FRAME_OFFSET + layout.offset_of(layout.FRAME_FIELDS, name) for name in ("captured_ns", "published_ns")
)


def _read_time(header: bytes, at: int) -> int:
    """Reads one time of a slot header: searches in time need no more of it."""
    return int(_TIME.unpack_from(header, at)[0])


class FrameMemory(Protocol):
    """The part of a ring reader that a frame needs."""

    def intact(self, sequence: int) -> bool:
        """Tells whether the slot still holds this sequence."""

    def view(self, sequence: int, header: bytes) -> Pixels:
        """Returns the payload of the slot with this header, read-only, where it lies in the ring."""

    def plane_views(self, sequence: int, header: bytes, geometry: Geometry) -> tuple[Pixels, ...]:
        """Returns the planes, read-only, where they lie in the ring."""


class Frame:
    """A frame borrowed from a ring (a context manager), or an owned copy of one.

    Borrowed: `payload`, `planes`, `luma` are views into the ring; what is computed from them counts only once
    `verify()`, or leaving the `with` block, has not raised FrameOverwritten. `bgr` and `copy()` verify themselves.
    """

    __slots__ = ("_fields", "_header", "_memory", "_payload", "sequence")

    def __init__(self, memory: FrameMemory | None, sequence: int, header: bytes, payload: Pixels | None = None) -> None:
        self.sequence = sequence
        """Position in this generation of the ring."""
        self._memory = memory
        self._header = header
        self._payload = payload
        self._fields: FrameFields | None = None

    @property
    def fields(self) -> FrameFields:
        """The slot header's numbers, in the order of layout.FRAME_FIELDS."""
        if self._fields is None:
            self._fields = layout.FRAME_STRUCT.unpack_from(self._header, layout.FRAME_OFFSET)
        return self._fields

    @property
    def meta(self) -> FrameMeta:
        """The metadata; valid also after the borrow."""
        return meta_of(self.fields)

    @property
    def frame_id(self) -> int:
        """Number of the frame over all generations."""
        return self.fields[1]

    @property
    def captured_ns(self) -> int:
        """Sensor clock, nanoseconds."""
        return _read_time(self._header, _CAPTURED_AT)

    @property
    def published_ns(self) -> int:
        """CLOCK_BOOTTIME when the writer committed it, nanoseconds."""
        return _read_time(self._header, _PUBLISHED_AT)

    @property
    def geometry(self) -> Geometry | None:
        """The layout of the pixels; None when the payload is not a picture."""
        start = layout.GEOMETRY_OFFSET
        if self._header[start] == 0:
            return None  # a record or a packet, whose size differs each time: not worth remembering
        return unpack_geometry(self._header[start : start + layout.GEOMETRY.itemsize], self.fields[5])

    @property
    def picture_geometry(self) -> Geometry:
        """The geometry of a payload that must be a picture; RingError when it is none."""
        geometry = self.geometry
        if geometry is None:
            raise RingError(f"sequence {self.sequence} is not a picture: use payload")
        return geometry

    picture = picture_geometry
    """Its former name, which programs use."""

    @property
    def payload(self) -> Pixels:
        """The used bytes, 1-D uint8, read-only."""
        if self._payload is None:
            if self._memory is None:
                raise RingError(f"the borrow of sequence {self.sequence} has ended: use copy() inside the with block")
            self._payload = self._memory.view(self.sequence, self._header)
        return self._payload

    @property
    def planes(self) -> tuple[Pixels, ...]:
        """Views of the planes, see shm_ring.formats.planes."""
        if self._memory is None:
            return formats.planes(self.payload, self.picture_geometry)
        return self._memory.plane_views(self.sequence, self._header, self.picture_geometry)

    @property
    def luma(self) -> Pixels:
        """Brightness, (height, width) uint8; a view for YUV and gray."""
        if self.picture_geometry.pixel_format in ("bgr24", "rgb24"):
            return color.luma(self.payload, self.picture_geometry)
        return self.planes[0]

    @property
    def bgr(self) -> Pixels:
        """A converted copy, (height, width, 3) uint8, verified."""
        converted = color.to_bgr(self.payload, self.picture_geometry)
        if np.may_share_memory(converted, self.payload):
            converted = converted.copy()  # a bgr24 payload needs no conversion, but the ring's memory is not ours
        self.verify()
        return converted

    @property
    def valid(self) -> bool:
        """True while all that was read so far belongs to this frame; always for owned copies."""
        return self._memory is None or self._memory.intact(self.sequence)

    def verify(self) -> None:
        """Raises FrameOverwritten unless `valid`."""
        if not self.valid:
            raise FrameOverwritten(f"sequence {self.sequence} was overwritten while it was read")

    def copy(self) -> Frame:
        """Returns an owned frame, verified; its pixels stay after the borrow and after the ring."""
        payload = self.payload.copy()
        payload.flags.writeable = False
        self.verify()
        return Frame(None, self.sequence, self._header, payload)

    def __enter__(self) -> Frame:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the borrow; an error inside it is kept unless the frame was overwritten, which may be its cause."""
        source, self._memory = self._memory, None
        if source is not None:
            self._payload = None
            if not source.intact(self.sequence):
                raise FrameOverwritten(f"sequence {self.sequence} was overwritten while it was read") from error
