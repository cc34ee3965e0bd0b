"""Everything that can go wrong with a ring, and whose turn it is to act."""

from __future__ import annotations


class RingError(Exception):
    """Base of all errors of this package."""


class RingNotReady(RingError, FileNotFoundError):
    """No writer has made this ring yet, or it is just being made. Retry."""


class RingRetired(RingNotReady):
    """The ring's writer has ended this generation; a new one bears the same name, or will. Open it again."""


class RingMismatch(RingError, ValueError):
    """The segment cannot be understood: other version, damaged, not ours. A person must act."""


class RingBusy(RingError, BlockingIOError):
    """Another living process writes this ring. The message names its pid."""


class RingTooLarge(RingError, MemoryError):
    """The ring does not fit into memory or /dev/shm. The message says how many slots would."""


class MetadataOutOfRange(RingError, ValueError):
    """The metadata of a frame do not fit into the ring's fields. The frame is not written."""


class FrameOverwritten(RingError, LookupError):
    """The writer came round while the frame was being read, or before. Discard what was computed, take a newer one."""


class FrameDamaged(RingMismatch, FrameOverwritten):
    """One slot cannot be understood. Discard it as one that was overwritten; the next may be whole."""


class ViewOutlivedRing(RingError, BufferError):
    """The ring cannot be unmapped because a numpy view into it still lives."""
