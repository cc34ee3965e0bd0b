"""CONTRACT 1: the bytes of the ring; its one writer; its read-only readers."""

from shm_ring.attach import AttachedRing, HeldFrame, attach
from shm_ring.cursor import Cursor, Spot
from shm_ring.errors import (
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
from shm_ring.live import LiveRing, Stop
from shm_ring.meta import Flags, FrameMeta
from shm_ring.pairing import Pair, pairs
from shm_ring.reader import RingReader
from shm_ring.slot import Slot
from shm_ring.video_capture import SharedCapture
from shm_ring.writer import RingWriter

__all__ = [
    "AttachedRing",
    "Cursor",
    "Flags",
    "Frame",
    "FrameMeta",
    "FrameOverwritten",
    "HeldFrame",
    "LiveRing",
    "Pair",
    "RingBusy",
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
    "ViewOutlivedRing",
    "attach",
    "pairs",
    "segment_name",
]
