"""The rings of one camera: main, and lores where it is asked for; made to fit the memory there is."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

from capture.settings import RingSettings
from imaging.formats import Geometry
from service.clock import now_ns
from shm_ring import RingError, RingReader, RingTooLarge, RingWriter
from shm_ring.layout import MIN_SLOTS
from shm_ring.shape import Shape
from shm_ring.sizing import fitting_slots, room

LEAST_SLOTS = 8
"""Fewer would let a reader be lapped by a hiccup of a quarter of a second at 30 fps."""

LOOK_NS = 1_000_000_000

log = logging.getLogger(__name__)


@dataclass
class Rings:
    """Owns the writers. Made once; `fit` makes or keeps the rings for what the camera delivers."""

    prefix: str
    camera: str
    lock_folder: Path
    _writers: dict[str, tuple[RingWriter, int]] = field(default_factory=dict, init=False)
    _looked_ns: int = field(default=0, init=False)

    def fit(self, stream: str, geometry: Geometry, slots: int, *, exact: bool) -> RingWriter:
        """The ring for frames of this geometry: the one there is if it fits, else a new generation.

        `exact`: the user named the number of slots, so anything less is refused instead of made smaller.
        Raises: RingBusy, RingTooLarge, RingMismatch.
        """
        payload_bytes = geometry.payload_bytes
        if stream in self._writers:
            writer, asked = self._writers[stream]
            if writer.payload_bytes == payload_bytes and asked == slots:
                return writer
            del self._writers[stream]
            writer.retire()
        name = f"/{self.prefix}.{self.camera}.{stream}"
        shape = Shape(slots if exact else self._fitting(name, slots, payload_bytes), payload_bytes)
        try:
            writer = RingWriter.create(
                name,
                slots=shape.slots,
                payload_bytes=payload_bytes,
                lock_dir=self.lock_folder,
                camera=self.camera,
                stream=stream,
            )
        except ValueError as error:
            if isinstance(error, RingError):
                raise
            raise RingTooLarge(str(error)) from error  # larger than any machine: the same to the user
        self._writers[stream] = writer, slots
        log.info("ring %s: %s", name, writer.account)
        log.info("ring %s generation=%d took_over=%s", name, writer.generation, writer.took_over)
        return writer

    def lost_name(self) -> bool:
        """Whether somebody took a ring's name away, looked at once a second: nobody could find its frames any more.

        Such a ring is given up here; the next `fit` makes a new generation.
        """
        if now_ns() - self._looked_ns < LOOK_NS:
            return False
        self._looked_ns = now_ns()
        gone = [stream for stream, (writer, _) in self._writers.items() if not writer.named]
        for stream in gone:
            log.warning("ring %s: its name was taken away; a new generation follows", self._writers[stream][0].name)
            self.drop(stream)
        return bool(gone)

    def drop(self, stream: str) -> None:
        """Retire one ring that is no longer wanted."""
        if stream in self._writers:
            self._writers.pop(stream)[0].retire()

    def heartbeat(self) -> None:
        """Tell readers that the writer lives although there is no frame."""
        for writer, _ in self._writers.values():
            writer.heartbeat()

    def leave(self) -> None:
        """Stop writing but leave the rings, for the next process to carry on."""
        for writer, _ in self._writers.values():
            writer.close()
        self._writers.clear()

    def close(self) -> None:
        """Retire and unlink all of them."""
        for stream in list(self._writers):
            self.drop(stream)

    def __enter__(self) -> Rings:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            self.leave()
        else:
            self.close()

    @staticmethod
    def _fitting(name: str, slots: int, payload_bytes: int) -> int:
        fitting = fitting_slots(Shape(slots, payload_bytes), room())
        if fitting >= slots:
            return slots
        left_over = _slots_of(name, payload_bytes)
        if MIN_SLOTS <= left_over <= slots:
            return left_over  # a crashed writer's ring takes the memory already; carrying it on needs none
        if fitting:
            log.warning("ring %s: only %d of %d slots fit", name, fitting, slots)
        return fitting or slots  # none at all: let the ring's own refusal say why


def wanted_slots(ring: RingSettings, stream: str, rate: float) -> tuple[int, bool]:
    """How many slots a stream should have at `rate` frames per second, and whether the user insists."""
    size = ring.size if stream == "main" else ring.downscale.size
    return (size, True) if size else (max(LEAST_SLOTS, math.ceil(ring.seconds * rate)), False)


def _slots_of(name: str, payload_bytes: int) -> int:
    """Slots of the ring that has this name now, if its frames are of this size; else 0."""
    try:
        with RingReader.open(name) as reader:
            return reader.slots if reader.payload_bytes == payload_bytes else 0
    except (RingError, OSError):
        return 0
