"""How one frame gets into its slot and is announced: the stores W1 to W4 of layout.py, and nothing else.

After a copy of megabytes, or a sleep, neither code nor data is in the caches: what a frame costs is how much of both
it touches. Hence few calls, and everything that can be worked out once is.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import numpy as np

from imaging.formats import Geometry
from shm_ring import layout
from shm_ring.fence import around_copy
from shm_ring.frame import Pixels
from shm_ring.futex import Futex
from shm_ring.layout import FRAME_STRUCT, HEAD_WORD, WORD_MASK
from shm_ring.meta import FrameMeta, pack_geometry
from shm_ring.slot import Payload, Place, Slot, flat
from shm_ring.takeover import Claim

_UNKNOWN = object()  # the geometry bytes of a slot that this writer has not written yet


class Publisher:
    """A segment that is ours to write; RingWriter makes it so."""

    def __init__(self, name: str, claimed: Claim, release: Callable[[], object] | None) -> None:
        mapping, shape = claimed.mapping, claimed.shape
        self.name, self.slots, self.payload_bytes = name, shape.slots, shape.payload_bytes
        self.next_frame_id = claimed.next_frame_id
        """One more than the newest frame's id, also of former writers."""
        self._head, self._release = claimed.head, release
        self._before_copy, self._after_copy = around_copy(release)
        self._bytes = memoryview(mapping)
        self._words, self._times = self._bytes.cast("I"), self._bytes.cast("q")
        array = np.frombuffer(mapping, np.uint8)
        starts = [shape.payload(slot) for slot in range(shape.slots)]
        self._arrays: list[Pixels] = [array[start : start + shape.payload_bytes] for start in starts]
        self._places = [Place.of(shape, slot, self._bytes) for slot in range(shape.slots)]
        self._geometries: list[object] = [_UNKNOWN] * shape.slots
        self._wake = Futex(array.ctypes.data + HEAD_WORD * 4).wake

    @property
    def head(self) -> int:
        """How many frames were published: the sequence of the next one."""
        return self._head

    def publish(self, payload: Payload, meta: FrameMeta, geometry: Geometry | None = None) -> None:
        """Copy one frame in. `payload`: any C-contiguous buffer, at most payload_bytes long.

        Raises: ValueError when it is longer or not contiguous; nothing is published then.
        """
        target = self.begin()
        try:
            used = len(payload)
            target[:used] = payload  # type: ignore[assignment] # numpy's stubs: 3.12
        except (ValueError, TypeError):  # not a row of bytes, or too long: look again
            payload = flat(payload)
            used = len(payload)
            if used > self.payload_bytes:
                raise ValueError(f"ring {self.name}: payload of {used} bytes, limit {self.payload_bytes}") from None
            target[:used] = payload  # type: ignore[assignment] # numpy's stubs: 3.12
        self.commit(used, meta, geometry)

    def slot(self) -> Slot:
        """Lend the next slot's memory for a `with` block; committed at its end, abandoned on an exception."""
        return Slot(self, self._arrays[self._head % self.slots])

    def begin(self) -> memoryview:
        """Say that the next slot's old frame is gone. Returns: the slot's memory."""
        sequence = self._head
        word_at, _, _, _, payload = self._places[sequence % self.slots]
        self._words[word_at] = (2 * sequence + 1) & WORD_MASK
        # SYNC POINT A: a reader that sees one new byte of this slot also sees the odd word.
        self._before_copy()
        return payload

    def commit(self, used_bytes: int, meta: FrameMeta, geometry: Geometry | None) -> None:
        """Write what travels with the payload, then make the frame visible and wake everybody."""
        sequence, words, release = self._head, self._words, self._release
        slot = sequence % self.slots
        word_at, trailer_at, fields_at, published_at, _ = self._places[slot]
        try:
            FRAME_STRUCT.pack_into(
                self._bytes,
                fields_at,
                sequence,
                meta.frame_id,
                meta.captured_ns,
                meta.captured_utc_ns,
                0,  # published_ns: below, when all else is done
                used_bytes,
                meta.analogue_gain,
                meta.digital_gain,
                meta.lux,
                meta.total_dropped,
                meta.exposure_us,
                meta.frame_duration_us,
                meta.colour_temperature_k,
                meta.flags,
                meta.dropped_before,
                0,
            )
        except struct.error as error:
            raise ValueError(f"ring {self.name}: {meta}: {error}") from None
        if geometry is not self._geometries[slot]:
            self._write_geometry(slot, geometry)
        word = (2 * sequence + 2) & WORD_MASK
        words[trailer_at] = word
        self._times[published_at] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        # SYNC POINT B: a reader that sees the even word also sees every byte stored before it.
        self._after_copy()
        words[word_at] = word
        # SYNC POINT E: a reader that sees the new head also sees the even word.
        if release is not None:
            release()
        self._head = sequence = sequence + 1
        words[HEAD_WORD] = sequence & WORD_MASK
        self._wake()
        self.next_frame_id = meta.frame_id + 1

    def _write_geometry(self, slot: int, geometry: Geometry | None) -> None:
        """Store a geometry in a slot header; done once per slot and change, not once per frame."""
        start = self._places[slot].fields + layout.GEOMETRY_OFFSET - layout.FRAME_OFFSET
        self._bytes[start : start + layout.GEOMETRY.itemsize] = pack_geometry(geometry)
        self._geometries[slot] = geometry
