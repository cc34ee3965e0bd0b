"""Memory fences for CPUs that reorder loads and stores; x86-64 needs them only around the copy of a frame."""

from __future__ import annotations

import ctypes
import functools
import platform
import threading
from collections.abc import Callable
from typing import NamedTuple

from shm_ring.errors import RingError

ACQUIRE, RELEASE = 2, 3  # memory_order_acquire, memory_order_release of C11
KEEPS_ORDER = ("x86_64", "amd64", "i686", "i586", "i386")
"""Machines whose loads are acquires and whose plain stores are releases by themselves (total store order)."""


class Fences(NamedTuple):
    """The two fences of the protocol; None where the CPU needs none, so that the hot path skips the call."""

    acquire: Callable[[], object] | None
    release: Callable[[], object] | None


def fences(*, machine: str | None = None, force: bool = False) -> Fences:
    """Return the fences this machine needs (`force`: real ones everywhere, to measure or to test them).

    libatomic exports atomic_thread_fence as a plain function; libc does not. PyDLL keeps the GIL: the call takes
    0.2 µs, letting go of the GIL and getting it back may take 5 ms.

    Raises: RingError naming the package when it is missing.
    """
    if (machine or platform.machine()).lower() in KEEPS_ORDER and not force:
        return Fences(None, None)
    try:
        fence = ctypes.PyDLL("libatomic.so.1").atomic_thread_fence
    except (OSError, AttributeError) as error:
        raise RingError(f"this CPU needs libatomic for memory fences: apt install libatomic1 ({error})") from error
    fence.restype = None
    acquire, release = ctypes.c_int(ACQUIRE), ctypes.c_int(RELEASE)
    return Fences(functools.partial(fence, acquire), functools.partial(fence, release))


def around_copy(release: Callable[[], object] | None) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return what a writer calls before and after a frame's bytes are stored; `release`: the machine's fence, if any.

    Where plain stores keep their order, the non-temporal ones do not with which C libraries copy what is larger than
    the caches: they overtook an earlier plain store 20 times in a million on an AMD EPYC. Locked instructions keep
    them apart (Intel SDM 3A, 9.2.2), and to take or to give back a free lock is one: 0.05 µs. A lock that is still
    held was taken for this very slot, whose frame was abandoned: its word is odd already, there is nothing to order.
    """
    if release is not None:
        return release, release
    lock = threading.Lock()
    return functools.partial(lock.acquire, False), lock.release
