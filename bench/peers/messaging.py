"""The ring and what a Python user could take instead, all behind one face, for bench/areas/ring/ring_peers.py.

A frame's first eight bytes are the time just before publish (CLOCK_MONOTONIC, ns). `taken` is what a reader does with
a frame: it has a pointer to it and reads that stamp; copying peers have copied it by then. Peers that can stamp a
frame between its copy and its signal do so in the next eight bytes ("commit").
"""

from __future__ import annotations

import ctypes
import multiprocessing
import queue
import struct
import tempfile
import time
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shm_ring import FrameMeta, FrameOverwritten, RingReader, RingWriter
from shm_ring.formats import geometry

SLOTS = 4
SPAWN = multiprocessing.get_context("spawn")
Stamps = tuple[int, int, int]
"""Call, commit, pointer: CLOCK_MONOTONIC, ns."""
STAMPS = struct.Struct("qq")


class Sender(Protocol):
    """The writing end; lives in the measuring process."""

    def publish(self, frame: np.ndarray) -> None: ...
    def reader_arguments(self) -> tuple[Any, ...]: ...
    def close(self) -> None: ...


class Taker(Protocol):
    """The reading end, in a process of its own."""

    def take(self, timeout_s: float) -> Stamps | None: ...
    def close(self) -> None: ...


def stamps(view: Any) -> Stamps:
    """Read both stamps off a frame's first bytes, and the clock: from here on the reader has its pointer."""
    call, commit = STAMPS.unpack_from(view)
    return call, commit, time.monotonic_ns()


class RingSender:
    """shm_ring."""

    def __init__(self, key: str, size: int, readers: int) -> None:
        self._name = f"/{key}.cam0.main"
        self._folder = tempfile.TemporaryDirectory()
        self._geometry = geometry("gray", 1, 1)
        self._writer = RingWriter.create(
            self._name, slots=SLOTS, payload_bytes=size, lock_dir=Path(self._folder.name), camera="cam0", stream="main"
        )

    def publish(self, frame: np.ndarray) -> None:
        self._writer.publish(frame, FrameMeta(self._writer.next_frame_id, 1, 1), self._geometry)

    def reader_arguments(self) -> tuple[Any, ...]:
        return (self._name,)

    def close(self) -> None:
        self._writer.retire()
        self._folder.cleanup()


class RingTaker:
    def __init__(self, name: str) -> None:
        self._reader = RingReader.open(name)
        self._next = self._reader.head
        self._clock_offset_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()

    def take(self, timeout_s: float) -> Stamps | None:
        if not self._reader.wait(self._next, timeout_s):
            return None
        try:
            with self._reader.borrow(self._next) as frame:
                call, _, pointer = stamps(frame.payload)
                found = call, frame.published_ns - self._clock_offset_ns, pointer
        except FrameOverwritten:
            self._next = self._reader.oldest + 1
            return None
        self._next += 1
        return found

    def close(self) -> None:
        self._reader.close()


class Iceoryx2Sender:
    def __init__(self, key: str, size: int, readers: int) -> None:
        import iceoryx2 as iox2

        iox2.set_log_level(iox2.LogLevel.Error)
        self._key, self._size = key, size
        node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)
        service = (
            node.service_builder(iox2.ServiceName.new(key))
            .publish_subscribe(iox2.Slice[ctypes.c_uint8])
            .subscriber_max_buffer_size(SLOTS)
            .enable_safe_overflow(True)
            .open_or_create()
        )
        event = node.service_builder(iox2.ServiceName.new(f"{key}/event")).event().open_or_create()
        self._keep = (node, service, event)
        self._publisher = service.publisher_builder().initial_max_slice_len(size).create()
        self._notifier = event.notifier_builder().create()

    def publish(self, frame: np.ndarray) -> None:
        sample = self._publisher.loan_slice_uninit(self._size)
        view = sample.payload().as_memory_view().cast("B")
        view[:] = frame.data
        view[8:16].cast("q")[0] = time.monotonic_ns()
        sample.assume_init().send()
        self._notifier.notify()

    def reader_arguments(self) -> tuple[Any, ...]:
        return (self._key,)

    def close(self) -> None:
        del self._publisher, self._notifier, self._keep


class Iceoryx2Taker:
    def __init__(self, key: str) -> None:
        import iceoryx2 as iox2

        iox2.set_log_level(iox2.LogLevel.Error)
        node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)
        service = (
            node.service_builder(iox2.ServiceName.new(key))
            .publish_subscribe(iox2.Slice[ctypes.c_uint8])
            .subscriber_max_buffer_size(SLOTS)
            .enable_safe_overflow(True)
            .open_or_create()
        )
        event = node.service_builder(iox2.ServiceName.new(f"{key}/event")).event().open_or_create()
        self._keep = (node, service, event)
        self._subscriber = service.subscriber_builder().create()
        self._listener = event.listener_builder().create()
        self._duration = iox2.Duration.from_millis(200)

    def take(self, timeout_s: float) -> Stamps | None:
        sample = self._subscriber.receive()
        if sample is None:
            self._listener.timed_wait(self._duration)
            sample = self._subscriber.receive()
            if sample is None:
                return None
        found = stamps(sample.payload().as_memory_view())
        sample.delete()
        return found

    def close(self) -> None:
        del self._subscriber, self._listener, self._keep


class ZmqSender:
    """pyzmq PUB/SUB over ipc, copy=False."""

    def __init__(self, key: str, size: int, readers: int) -> None:
        import zmq

        self._folder = tempfile.TemporaryDirectory()
        self._address = f"ipc://{self._folder.name}/{key}"
        self._socket: Any = zmq.Context.instance().socket(zmq.PUB)
        self._socket.set_hwm(SLOTS)
        self._socket.bind(self._address)

    def publish(self, frame: np.ndarray) -> None:
        self._socket.send(frame, copy=False)

    def reader_arguments(self) -> tuple[Any, ...]:
        return (self._address,)

    def close(self) -> None:
        self._socket.close(0)
        self._folder.cleanup()


class ZmqTaker:
    def __init__(self, address: str) -> None:
        import zmq

        self._socket: Any = zmq.Context.instance().socket(zmq.SUB)
        self._socket.set_hwm(SLOTS)
        self._socket.connect(address)
        self._socket.subscribe(b"")

    def take(self, timeout_s: float) -> Stamps | None:
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        return stamps(self._socket.recv(copy=False).buffer[:16])

    def close(self) -> None:
        self._socket.close(0)


class QueueSender:
    """One multiprocessing.Queue per reader, of SLOTS frames; a full one drops."""

    def __init__(self, key: str, size: int, readers: int) -> None:
        self._queues = [SPAWN.Queue(SLOTS) for _ in range(readers)]
        self._given = 0

    def publish(self, frame: np.ndarray) -> None:
        for mailbox in self._queues:
            try:
                mailbox.put_nowait(frame.copy())  # it is pickled later, by a thread: it must not change until then
            except queue.Full:
                continue

    def reader_arguments(self) -> tuple[Any, ...]:
        self._given += 1
        return (self._queues[self._given - 1],)

    def close(self) -> None:
        for mailbox in self._queues:
            mailbox.cancel_join_thread()
            mailbox.close()


class QueueTaker:
    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def take(self, timeout_s: float) -> Stamps | None:
        try:
            return stamps(self._mailbox.get(timeout=timeout_s)[:16].data)
        except queue.Empty:
            return None

    def close(self) -> None:
        self._mailbox.close()


class PipeSender:
    """One multiprocessing.Pipe per reader."""

    def __init__(self, key: str, size: int, readers: int) -> None:
        self._pipes = [SPAWN.Pipe(duplex=False) for _ in range(readers)]
        self._given = 0

    def publish(self, frame: np.ndarray) -> None:
        for _, end in self._pipes:
            end.send_bytes(frame.data)

    def reader_arguments(self) -> tuple[Any, ...]:
        self._given += 1
        return (self._pipes[self._given - 1][0],)

    def close(self) -> None:
        for pair in self._pipes:
            for end in pair:
                end.close()


class PipeTaker:
    def __init__(self, end: Any) -> None:
        self._end = end

    def take(self, timeout_s: float) -> Stamps | None:
        return stamps(self._end.recv_bytes()[:16]) if self._end.poll(timeout_s) else None

    def close(self) -> None:
        self._end.close()


class ConditionSender:
    """One frame in multiprocessing.shared_memory, guarded by a Condition; readers copy it out under the lock."""

    def __init__(self, key: str, size: int, readers: int) -> None:
        self._condition, self._count = SPAWN.Condition(), SPAWN.Value("Q", 0, lock=False)
        self._memory = shared_memory.SharedMemory(create=True, size=size)
        self._frame: Any = self._memory.buf
        self._size = size

    def publish(self, frame: np.ndarray) -> None:
        with self._condition:
            self._frame[: self._size] = frame.data
            self._frame[8:16].cast("q")[0] = time.monotonic_ns()
            self._count.value += 1
            self._condition.notify_all()

    def reader_arguments(self) -> tuple[Any, ...]:
        return self._condition, self._count, self._memory.name, self._size

    def close(self) -> None:
        del self._frame
        self._memory.close()
        self._memory.unlink()


class ConditionTaker:
    def __init__(self, condition: Any, count: Any, name: str, size: int) -> None:
        self._condition, self._count, self._memory = condition, count, shared_memory.SharedMemory(name)
        self._frame: Any = self._memory.buf
        self._copy, self._seen = np.empty(size, np.uint8), count.value

    def take(self, timeout_s: float) -> Stamps | None:
        with self._condition:
            if not self._condition.wait_for(lambda: self._count.value > self._seen, timeout_s):
                return None
            self._seen = self._count.value
            self._copy.data[:] = self._frame[: self._copy.size]
        return stamps(self._copy[:16].data)

    def close(self) -> None:
        self._memory.close()
