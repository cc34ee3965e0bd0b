"""Peers that are not of the standard library or messaging: PyPI's rings and zenoh; same face as messaging.py."""

from __future__ import annotations

import queue
import socket
import time
from typing import Any

import numpy as np

from bench.peers.messaging import SLOTS, Stamps, stamps
from shm_ring.machine.available_memory import SHM_FOLDER


class PyshmemSender:
    """pyshmem: one slot, lock free, futex notification; readers copy out."""

    def __init__(self, key: str, size: int, readers: int) -> None:
        import pyshmem

        self._key = key
        self._stream = pyshmem.create(key, shape=(size,), dtype=np.uint8, notify=True)

    def publish(self, frame: np.ndarray) -> None:
        self._stream.write(frame)

    def reader_arguments(self) -> tuple[Any, ...]:
        return (self._key,)

    def close(self) -> None:
        self._stream.close()
        self._stream.unlink()


class PyshmemTaker:
    def __init__(self, key: str) -> None:
        import pyshmem

        self._stream = pyshmem.open(key, readonly=True)

    def take(self, timeout_s: float) -> Stamps | None:
        try:
            frame = self._stream.read_new(timeout=timeout_s)
        except TimeoutError:
            return None
        return None if frame is None else stamps(frame[:16].data)

    def close(self) -> None:
        self._stream.close()


class ZerochannelSender:
    """zerochannel: a ring without a wake-up, polled each millisecond; readers copy out."""

    def __init__(self, key: str, size: int, readers: int) -> None:
        from zerochannel import BytesWriter

        self._key = key
        self._writer = BytesWriter(f"/{key}", entry_length=size, entry_count=SLOTS)

    def publish(self, frame: np.ndarray) -> None:
        self._writer.write(frame.tobytes())  # it takes nothing but bytes

    def reader_arguments(self) -> tuple[Any, ...]:
        return (self._key,)

    def close(self) -> None:
        from shm_ring import segment

        del self._writer
        segment.unlink(f"/{self._key}")


class ZerochannelTaker:
    def __init__(self, key: str) -> None:
        from zerochannel import BytesReader

        self._reader = BytesReader(f"/{key}")

    def take(self, timeout_s: float) -> Stamps | None:
        until_s = time.monotonic() + timeout_s
        while (entry := self._reader.read()) is None:
            if time.monotonic() > until_s:
                return None
            time.sleep(0.001)
        return stamps(entry[1][:16])

    def close(self) -> None:
        del self._reader


class ZenohSender:
    """eclipse-zenoh with its shared memory; Python gets at the bytes only by copying them."""

    def __init__(self, key: str, size: int, readers: int) -> None:
        import zenoh
        import zenoh.shm

        self._before = set(SHM_FOLDER.glob("*.zenoh"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._key, self._size = key, size
        self._session = zenoh.open(zenoh_config(f'listen/endpoints=["tcp/127.0.0.1:{self._port}"]'))
        self._publisher = self._session.declare_publisher(key)
        self._provider = zenoh.shm.ShmProvider.default_backend((SLOTS + 4) * (size + 4096))
        self._policy = zenoh.shm.BlockOn(zenoh.shm.GarbageCollect())

    def publish(self, frame: np.ndarray) -> None:
        buffer = self._provider.alloc(self._size, policy=self._policy)
        buffer[:] = frame.tobytes()
        self._publisher.put(buffer)

    def reader_arguments(self) -> tuple[Any, ...]:
        return self._key, self._port

    def close(self) -> None:
        self._session.close()  # type: ignore[no-untyped-call]
        for left in set(SHM_FOLDER.glob("*.zenoh")) - self._before:
            left.unlink(missing_ok=True)  # what its readers, ended without its destructors, leave behind


class ZenohTaker:
    def __init__(self, key: str, port: int) -> None:
        import zenoh

        self._session = zenoh.open(zenoh_config(f'connect/endpoints=["tcp/127.0.0.1:{port}"]'))
        self._samples: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._subscriber = self._session.declare_subscriber(key, self._samples.put)

    def take(self, timeout_s: float) -> Stamps | None:
        try:
            return stamps(bytes(self._samples.get(timeout=timeout_s).payload)[:16])
        except queue.Empty:
            return None

    def close(self) -> None:
        self._session.close()  # type: ignore[no-untyped-call]


def zenoh_config(endpoint: str) -> Any:
    """Loopback only, no discovery, shared memory on."""
    import zenoh

    config = zenoh.Config()
    key, _, value = endpoint.partition("=")
    for name, setting in (
        (key, value),
        ("mode", '"peer"'),
        ("scouting/multicast/enabled", "false"),
        ("transport/shared_memory/enabled", "true"),
    ):
        config.insert_json5(name, setting)
    return config
