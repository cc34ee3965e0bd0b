"""Futexes and memory fences, through ctypes.

A futex (Linux) sleeps until a 32-bit word of shared memory changes. It works on a read-only mapping, registers
nothing, leaves nothing behind when a sleeper dies, and one call wakes all. Fences are for CPUs that reorder loads and
stores; x86-64 needs them only around the copy of a frame.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from shm_ring.errors import RingError

FUTEX_WAIT, FUTEX_WAKE = 0, 1  # never the PRIVATE variants: they do not match across processes
ALL_SLEEPERS = 0x7FFFFFFF
TIMEOUT_MAX_S = 1e9  # 31 years, which a 32-bit timespec still holds; stands for infinity
POLL_S = 0.001  # where the call's number is unknown: four times the CPU of a futex, half a millisecond late

_NUMBER_64 = {"x86_64": 202, "amd64": 202, "aarch64": 98, "riscv64": 98}
_NUMBER_32 = {"i386": 240, "i686": 240, "armv6l": 240, "armv7l": 240, "armv8l": 240, "aarch64": 240, "x86_64": 240}


class _Timespec(ctypes.Structure):
    """C's struct timespec as the futex call of this word size expects it."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def find_call_number(machine: str, pointer_bytes: int) -> int | None:
    """Finds the system call's number; a 32-bit Python under a 64-bit kernel uses the 32-bit table."""
    return (_NUMBER_64 if pointer_bytes == 8 else _NUMBER_32).get(machine.lower())


class Futex:
    """One word of shared memory to wait on or to wake."""

    def __init__(self, address: int, number: int | None = None) -> None:
        self._number = number or find_call_number(platform.machine(), ctypes.sizeof(ctypes.c_void_p))
        # Prebuilt arguments halve the cost of a ctypes call. WAIT lets go of the GIL (CDLL), WAKE keeps it (PyDLL): it
        # is over in microseconds, and a busy second thread could keep the writer from getting the GIL back for 5 ms.
        where = ctypes.c_void_p(address)
        call = ctypes.c_long(self._number or 0)
        self._wait = functools.partial(ctypes.CDLL(None).syscall, call, where, ctypes.c_int(FUTEX_WAIT))
        self.wake: Callable[[], object] = (
            functools.partial(
                ctypes.PyDLL(None).syscall,
                call,
                where,
                ctypes.c_int(FUTEX_WAKE),
                ctypes.c_int(ALL_SLEEPERS),
            )
            if self._number
            else int  # polling readers need no wake-up; int() is the cheapest call that does nothing
        )

    def wait(self, expected: int, timeout_s: float) -> None:
        """Sleeps while the word equals `expected`, at most `timeout_s`; may return early, so look at the word again.

        A signal ends the sleep: its handler has run when this returns.
        """
        if not self._number:
            time.sleep(min(POLL_S, timeout_s))
            return
        self._wait(expected, _timespec_of(timeout_s))


@functools.lru_cache(maxsize=64)  # loops ask for the same few; the kernel only reads it, so threads may share it
def _timespec_of(timeout_s: float) -> object:
    """Returns a pointer to the timeout as the kernel wants it."""
    whole, part = divmod(min(max(timeout_s, 0.0), TIMEOUT_MAX_S), 1.0)
    return ctypes.byref(_Timespec(int(whole), int(part * 1e9)))


ACQUIRE, RELEASE = 2, 3  # memory_order_acquire, memory_order_release of C11
KEEPS_ORDER = ("x86_64", "amd64", "i686", "i586", "i386")
"""Machines whose loads are acquires and whose plain stores are releases by themselves (total store order)."""


class Fences(NamedTuple):
    """The two fences of the protocol; None where the CPU needs none, so that the hot path skips the call."""

    acquire: Callable[[], object] | None
    release: Callable[[], object] | None


def fences(*, machine: str | None = None, force: bool = False) -> Fences:
    """Returns the fences this machine needs (`force`: real ones everywhere, to measure or to test them).

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
    """Returns what a writer calls before and after a frame's bytes are stored; `release`: the machine's fence, if any.

    Where plain stores keep their order, the non-temporal ones do not with which C libraries copy what is larger than
    the caches: they overtook an earlier plain store 20 times in a million on an AMD EPYC. Locked instructions keep
    them apart (Intel SDM 3A, 9.2.2), and to take or to give back a free lock is one: 0.05 µs. A lock that is still
    held was taken for this very slot, whose frame was abandoned: its word is odd already, there is nothing to order.
    """
    if release is not None:
        return release, release
    lock = threading.Lock()
    return functools.partial(lock.acquire, False), lock.release
