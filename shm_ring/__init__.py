"""CONTRACT 1: the bytes of the ring; its one writer; its read-only readers."""

from __future__ import annotations

from shm_ring.attach import AttachedRing, HeldFrame, Pair, attach, pairs
from shm_ring.errors import (
    FrameDamaged,
    FrameOverwritten,
    RingBusy,
    RingError,
    RingMismatch,
    RingNotReady,
    RingRetired,
    RingTooLarge,
    ViewOutlivedRing,
)
from shm_ring.frame import Frame
from shm_ring.layout import segment_name
from shm_ring.live_ring import LiveRing, RingCursor, Spot, StopSignal
from shm_ring.metadata import Flags, FrameMeta
from shm_ring.opencv_capture import SharedCapture
from shm_ring.reader import RingReader
from shm_ring.writer import RingWriter, Slot

Cursor, Stop = RingCursor, StopSignal
"""Their former names, which programs may import."""

__all__ = [
    "AttachedRing",
    "Cursor",
    "Flags",
    "Frame",
    "FrameDamaged",
    "FrameMeta",
    "FrameOverwritten",
    "HeldFrame",
    "LiveRing",
    "Pair",
    "RingBusy",
    "RingCursor",
    "RingError",
    "RingMismatch",
    "RingNotReady",
    "RingReader",
    "RingRetired",
    "RingTooLarge",
    "RingWriter",
    "SharedCapture",
    "Slot",
    "Spot",
    "Stop",
    "StopSignal",
    "ViewOutlivedRing",
    "attach",
    "pairs",
    "segment_name",
]
