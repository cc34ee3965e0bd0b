"""A slot from the writer's side: where its parts lie, and how it is lent to a source."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from imaging.formats import Geometry
from shm_ring import layout
from shm_ring.meta import FrameMeta
from shm_ring.shape import Shape

Payload = NDArray[Any] | bytes | bytearray | memoryview


class Place(NamedTuple):
    """Where one slot's parts lie, worked out once."""

    word: int
    """Index of its sequence word among the segment's words."""
    trailer: int
    """Index of its trailer among them."""
    fields: int
    """Byte offset of the frame's fields."""
    published: int
    """Index of its published_ns among the segment's 64-bit words."""
    payload: memoryview

    @classmethod
    def of(cls, shape: Shape, slot: int, segment: memoryview) -> Place:
        """Work them out."""
        header, start = shape.slot_header(slot), shape.payload(slot)
        payload = segment[start : start + shape.payload_bytes]
        fields = header + layout.FRAME_OFFSET
        published = (fields + layout.offset_of(layout.FRAME_FIELDS, "published_ns")) // 8
        return cls(header // 4, shape.trailer(slot) // 4, fields, published, payload)


def flat(payload: Payload) -> NDArray[Any] | memoryview:
    """Look at any contiguous buffer as a row of bytes."""
    if not isinstance(payload, np.ndarray):
        return memoryview(payload).cast("B")
    if not payload.flags.c_contiguous:
        raise ValueError(f"payload of shape {payload.shape} is not contiguous: copy it, or fill writer.slot()")
    return payload.reshape(-1).view(np.uint8)


class Lender(Protocol):
    """What a lent slot asks of its writer."""

    name: str
    payload_bytes: int

    def begin(self) -> object:
        """Say that the slot's old frame is gone."""

    def commit(self, used_bytes: int, meta: FrameMeta, geometry: Geometry | None) -> None:
        """Make the frame visible."""


class Slot:
    """The next slot's memory, lent to a source: fill `payload`, set `meta` (and `geometry`), leave the block.

    `used_bytes` defaults to the geometry's, or to the whole slot. A block that leaves without `meta` publishes nothing.
    """

    __slots__ = ("_writer", "geometry", "meta", "payload", "used_bytes")

    def __init__(self, writer: Lender, payload: NDArray[np.uint8]) -> None:
        self._writer = writer
        self.payload = payload
        """Writable 1-D uint8, payload_bytes long."""
        self.meta: FrameMeta | None = None
        self.geometry: Geometry | None = None
        self.used_bytes: int | None = None

    def __enter__(self) -> Slot:
        self._writer.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or self.meta is None:
            return  # the slot stays odd: abandoned, and overwritten by the next frame
        used = self.used_bytes
        if used is None:
            used = self._writer.payload_bytes if self.geometry is None else self.geometry.payload_bytes
        if not 0 <= used <= self._writer.payload_bytes:
            raise ValueError(f"ring {self._writer.name}: {used} bytes used of {self._writer.payload_bytes}")
        self._writer.commit(used, self.meta, self.geometry)
