"""How large a ring is: the two numbers from which every offset of layout.py's drawing follows."""

from __future__ import annotations

from typing import NamedTuple

from shm_ring.layout import (
    MAX_SEGMENT_BYTES,
    MAX_SLOTS,
    MIN_SLOTS,
    PAGE_BYTES,
    SLOT_HEADER_BYTES,
    TRAILER_BYTES,
)


class Shape(NamedTuple):
    """The sizes from which every offset follows."""

    slots: int
    payload_bytes: int

    @property
    def payload_offset(self) -> int:
        """Bytes from the start of the segment to the first payload."""
        return _up(PAGE_BYTES + self.slots * SLOT_HEADER_BYTES)

    @property
    def slot_stride(self) -> int:
        """Bytes from one payload to the next."""
        return _up(self.payload_bytes + TRAILER_BYTES)

    @property
    def total_bytes(self) -> int:
        """Length of the segment."""
        return self.payload_offset + self.slots * self.slot_stride

    def slot_header(self, slot: int) -> int:
        """Where the header of a slot begins."""
        return PAGE_BYTES + slot * SLOT_HEADER_BYTES

    def payload(self, slot: int) -> int:
        """Where the payload of a slot begins."""
        return self.payload_offset + slot * self.slot_stride

    def trailer(self, slot: int) -> int:
        """Where the copy of the sequence word after the payload lies."""
        return self.payload(slot + 1) - TRAILER_BYTES

    def problem(self) -> str:
        """Why no ring can have these sizes; empty when one can."""
        if not MIN_SLOTS <= self.slots <= MAX_SLOTS:
            return f"slots = {self.slots}: must be {MIN_SLOTS}..{MAX_SLOTS}"
        if not 1 <= self.payload_bytes <= MAX_SEGMENT_BYTES or self.total_bytes > MAX_SEGMENT_BYTES:
            return f"payload_bytes = {self.payload_bytes}: must be 1 or more, {MAX_SEGMENT_BYTES} bytes for the ring"
        return ""


def _up(size: int) -> int:
    """Round up to whole pages."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES
