"""The rings of one camera: main, and lores where it is asked for; made to fit the memory there is."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from capture.frame_ids import FrameIds
from capture.settings import LEAST_SLOTS
from shm_ring import RingError, RingReader, RingTooLarge, RingWriter
from shm_ring.formats import Geometry
from shm_ring.layout import MIN_SLOTS, RingShape
from shm_ring.machine.available_memory import SHM_FOLDER, MemoryRoom, available_room
from shm_ring.segment import fitting_slots, memory_account
from shmcam.config.memory_plan import MemoryPlan
from shmcam.runtime.clock import now_ns
from shmcam.runtime.procfs import read_service_bytes

CHECK_NS, MEASURE_NS = 1_000_000_000, 10_000_000_000

RELEASE_NS = 2_000_000_000
"""Readers have left an old ring within this time (design.md §3); until then its pages are missing for the new one."""

log = logging.getLogger(__name__)


@dataclass
class Rings:
    """Owns the writers. Made once; `fit` makes or keeps the rings for what the camera delivers."""

    prefix: str
    camera: str
    lock_folder: Path
    frame_ids: FrameIds | None = None
    """None: ids go on as far as the rings and their lock files remember."""
    plan: MemoryPlan | None = None
    """What else of this service needs memory; None: nothing that is still to come."""
    _writers: dict[str, tuple[RingWriter, int]] = field(default_factory=dict, init=False)
    """Ring and the slots asked for, by stream; -1 slots: to be made anew."""
    _geometries: dict[str, Geometry] = field(default_factory=dict, init=False)
    """The geometry that each ring was made for."""
    _too_small: set[str] = field(default_factory=set, init=False)
    """Streams whose ring came out too small: others took the room, or a reader held on to the ring before it."""
    _looked_ns: int = field(default=0, init=False)
    _measure_ns: int = field(default=0, init=False)
    """Not before this time is it measured again what each program has."""

    def fit(self, stream: str, geometry: Geometry, slots: int) -> RingWriter:
        """Returns the ring for frames of this geometry: the one there is if it fits, else a new generation.

        Where `slots` do not fit into memory, the ring gets fewer, with a warning. Raises: RingBusy, RingMismatch;
        RingTooLarge where not even the least ring fits.
        """
        payload_bytes = geometry.payload_bytes
        name, shape = f"/{self.prefix}.{self.camera}.{stream}", RingShape(slots, payload_bytes)
        if stream in self._writers:
            writer, before = self._writers[stream]
            if self._geometries[stream] == geometry and before == slots:
                return writer
            self._replace(stream, shape)
        shape = shape._replace(slots=self._fit_slots(stream, name, shape))
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
        self._writers[stream], self._geometries[stream] = (writer, slots), geometry
        if shape.slots < slots:
            self._too_small.add(stream)
        if self.frame_ids is not None and stream == "main":
            writer.next_frame_id = self.frame_ids.begin(writer.next_frame_id, exact=writer.knows_next_id)
        log.info("ring %s: %s", name, writer.account)
        log.info("ring %s generation=%d took_over=%s", name, writer.generation, writer.took_over)
        return writer

    @property
    def shortage(self) -> str:
        """The rings that are smaller than asked for, in words; empty: none."""
        short = [(s, w.slots, asked) for s, (w, asked) in self._writers.items() if w.slots < asked]
        return ", ".join(f"ring {stream} holds {slots} of {asked} frames: no room" for stream, slots, asked in short)

    def check(self) -> bool:
        """Checks the rings, once a second. Returns: True if one must be made anew, by the next `fit`."""
        if now_ns() - self._looked_ns < CHECK_NS:
            return False
        self._looked_ns = now_ns()
        if self.frame_ids is not None and "main" in self._writers:
            writer = self._writers["main"][0]
            writer.next_frame_id = self.frame_ids.advance_mark(writer.next_frame_id)
        return self._drop_damaged() or self._find_growable()

    def _drop_damaged(self) -> bool:
        """Retires rings whose name was removed or whose header was overwritten: no new reader could open them."""
        gone = [stream for stream, (writer, _) in self._writers.items() if not writer.intact]
        for stream in gone:
            name = self._writers[stream][0].name
            log.warning("ring %s: its name was taken away or its header overwritten; a new generation follows", name)
            self.drop(stream)
        return bool(gone)

    def _find_growable(self) -> bool:
        """Finds a ring for which there is room for the size asked for now, and no less: a new one costs its frames."""
        for stream in list(self._too_small):
            writer, asked = self._writers[stream]
            own, shape = _total_bytes(writer), RingShape(asked, writer.payload_bytes)
            if available_room().usable_bytes + own < shape.total_bytes or now_ns() < self._measure_ns:
                continue  # the closer look reads the memory of each program
            self._measure_ns = now_ns() + MEASURE_NS
            free = self._measure_room(stream, shape.total_bytes)
            if fitting_slots(shape, MemoryRoom(free.memory_bytes + own, free.shm_bytes + own)) == shape.slots:
                log.info("ring %s: room for all %d slots now; a new generation follows", writer.name, shape.slots)
                self._too_small.remove(stream)
                self._writers[stream] = writer, -1
                return True
        return False

    def _fit_slots(self, stream: str, name: str, shape: RingShape) -> int:
        """Returns the slots that a ring gets: those wanted, or as many as memory allows."""
        fitting = fitting_slots(shape, room := self._measure_room(stream, shape.total_bytes))
        if fitting >= shape.slots:
            return shape.slots
        left_over = _slots_of(name, shape.payload_bytes)
        if MIN_SLOTS <= left_over <= shape.slots:
            return left_over  # a crashed writer's ring takes the memory already; carrying it on needs none
        # Few frames are better than no picture, even where by the plan there is no memory at all.
        fitting = max(fitting, fitting_slots(shape._replace(slots=min(LEAST_SLOTS, shape.slots)), available_room()))
        if fitting:
            text = f"{memory_account(shape, room)}, without what is kept for the rest of the service"
            log.warning("ring %s: size adjusted requested=%d effective=%d: %s", name, shape.slots, fitting, text)
        return fitting or shape.slots  # none at all: let the ring's own refusal say why

    def _measure_room(self, stream: str, wanted_bytes: int) -> MemoryRoom:
        """Measures the memory for one ring: what programs need that are not at work yet, and rings to come, is kept."""
        free = available_room()
        if self.plan is None:
            return free
        to_come = max(0, self.plan.program_bytes - read_service_bytes())
        own = f"{self.camera}.{stream}"
        missing = sum(
            size
            for name, size in self.plan.rings.items()
            if name != own and not (SHM_FOLDER / f"{self.prefix}.{name}").exists()
        )
        share = wanted_bytes / (wanted_bytes + missing)
        return MemoryRoom(max(0, int((free.memory_bytes - to_come) * share)), int(free.shm_bytes * share))

    def _replace(self, stream: str, shape: RingShape) -> None:
        """Retires a ring; where its memory is needed for the next one, waits until its readers have let it go."""
        wanted = available_room().shm_bytes + _total_bytes(self._writers[stream][0])
        self.drop(stream)
        until_ns = now_ns() + RELEASE_NS
        while (
            fitting_slots(shape, free := available_room()) < shape.slots
            and free.shm_bytes < wanted
            and now_ns() < until_ns
        ):
            time.sleep(0.01)

    def drop(self, stream: str) -> None:
        """Retires one ring that is no longer wanted."""
        self._too_small.discard(stream)
        if stream in self._writers:
            self._writers.pop(stream)[0].retire()

    def heartbeat(self) -> None:
        """Tells readers that the writer lives although there is no frame."""
        for writer, _ in self._writers.values():
            writer.heartbeat()

    def leave(self) -> None:
        """Stops writing but leaves the rings, for the next process to carry on."""
        for writer, _ in self._writers.values():
            writer.close()
        self._writers.clear()
        self._too_small.clear()

    def close(self) -> None:
        """Retires and unlinks all of them."""
        if self.frame_ids is not None and "main" in self._writers:
            self.frame_ids.end(self._writers["main"][0].next_frame_id)
        for stream in list(self._writers):
            self.drop(stream)

    def __enter__(self) -> Rings:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            self.leave()
        else:
            self.close()


def _total_bytes(writer: RingWriter) -> int:
    return RingShape(writer.slots, writer.payload_bytes).total_bytes


def _slots_of(name: str, payload_bytes: int) -> int:
    """Slots of the ring that has this name now, if its frames are of this size; else 0."""
    try:
        with RingReader.open(name) as reader:
            return reader.slots if reader.payload_bytes == payload_bytes else 0
    except (RingError, OSError):
        return 0
