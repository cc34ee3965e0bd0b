"""Sleeping until a 32-bit word of shared memory changes: Linux futexes through ctypes.

Works on a read-only mapping, registers nothing, leaves nothing behind when a sleeper dies, and one call wakes all.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import time
from collections.abc import Callable

FUTEX_WAIT, FUTEX_WAKE = 0, 1  # never the PRIVATE variants: they do not match across processes
EVERYBODY = 0x7FFFFFFF
FOR_EVER_S = 1e9  # 31 years, which a 32-bit timespec still holds; for those who ask for infinity
POLL_S = 0.001  # where the call's number is unknown: four times the CPU of a futex, half a millisecond late

_NUMBER_64 = {"x86_64": 202, "amd64": 202, "aarch64": 98, "riscv64": 98}
_NUMBER_32 = {"i386": 240, "i686": 240, "armv6l": 240, "armv7l": 240, "armv8l": 240, "aarch64": 240, "x86_64": 240}


class _Timespec(ctypes.Structure):
    """C's struct timespec as the futex call of this word size expects it."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def call_number(machine: str, pointer_bytes: int) -> int | None:
    """Find the system call's number; a 32-bit Python under a 64-bit kernel uses the 32-bit table."""
    return (_NUMBER_64 if pointer_bytes == 8 else _NUMBER_32).get(machine.lower())


class Futex:
    """One word of shared memory to wait on or to wake."""

    def __init__(self, address: int, number: int | None = None) -> None:
        self._number = number or call_number(platform.machine(), ctypes.sizeof(ctypes.c_void_p))
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
                ctypes.c_int(EVERYBODY),
            )
            if self._number
            else int  # polling readers need no wake-up; int() is the cheapest call that does nothing
        )

    def wait(self, expected: int, timeout_s: float) -> None:
        """Sleep while the word equals `expected`, at most `timeout_s`; may return early, so look at the word again.

        A signal ends the sleep: its handler has run when this returns.
        """
        if not self._number:
            time.sleep(min(POLL_S, timeout_s))
            return
        self._wait(expected, _limit(timeout_s))


@functools.lru_cache(maxsize=64)  # loops ask for the same few; the kernel only reads it, so threads may share it
def _limit(timeout_s: float) -> object:
    """Return a pointer to the timeout as the kernel wants it."""
    whole, part = divmod(min(max(timeout_s, 0.0), FOR_EVER_S), 1.0)
    return ctypes.byref(_Timespec(int(whole), int(part * 1e9)))
