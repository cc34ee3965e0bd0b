"""Lays out this process's memory for forks: what it needs no more is given back, what children write is apart.

Measured as PSS of the whole default pipeline (docs/decisions.md, weight).
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ALLOCATOR = (-8, "MALLOC_ARENA_MAX", 1), (-3, "MALLOC_MMAP_THRESHOLD_", 1 << 20)
"""mallopt(3): parameter, variable of the environment that sets it, too, and our value.

One heap: threads of ours seldom allocate at once. And blocks from 1 MB on are given back to the kernel when they are
freed. Left alone, glibc raises this bound up to 32 MB when it frees a large one: what an encoder had freed stayed ours,
in holes that the next one did not fit into. What is needed for each frame is kept from frame to frame.
"""

PR_SET_THP_DISABLE = 41
"""prctl(2): whether memory may be given in pages of 2 MB."""

MADV_DONTNEED = 4
"""madvise(2)."""

SIZE_CLASS = re.compile(r"^ *\d+ +(?P<bytes>\d+) +\d+ +\d+ +(?P<free>\d+)$", re.MULTILINE)
"""A line of sys._debugmallocstats: class, size, pools, blocks in use, blocks that are free."""

BYTES_HEADER = sys.getsizeof(b"")

_fillings: list[object] = []
"""What `_fill_small_blocks` made."""


def limit_allocator() -> None:
    """Sets ALLOCATOR for this process and its forked children, where the environment says nothing else."""
    for parameter, variable, value in ALLOCATOR:
        if variable not in os.environ:
            with suppress(AttributeError):  # another C library than glibc
                ctypes.CDLL(None).mallopt(parameter, value)


def refuse_huge_pages(*, refuse: bool) -> None:
    """Takes only small pages for this process and what it forks or executes; x264 and numpy ask for those of 2 MB.

    They are rounded up to: 5 MB more at 1024x768, for a time of encoding that is the same within the noise.
    """
    with suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, int(refuse), 0, 0, 0)


def prepare_for_forks() -> None:
    """Does what is to be done once all is imported; afterwards a child copies few of the pages that it shares."""
    getattr(sys, "_clear_type_cache", int)()  # a child that replaces an entry writes into the name that it held
    _fill_small_blocks()
    gc.freeze()  # or the first collection of each child would write into, and so copy, every page
    libc = ctypes.CDLL(None)
    with suppress(AttributeError):
        libc.malloc_trim(0)
    with suppress(OSError):  # a kernel without /proc/self/smaps
        for start, end in list(_find_clean_code()):
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


def _fill_small_blocks() -> None:
    """Takes each free block between objects of this process, so that children allocate in pages of their own.

    Half a megabyte here, which saves more than one in each child. Where CPython tells nothing, nothing is filled.
    """
    for size, free in _list_free_blocks():
        if size > BYTES_HEADER + 1:
            _fillings.append([bytes(size - BYTES_HEADER) for _ in range(free)])
        elif size == sys.getsizeof(object()):
            _fillings.append([object() for _ in range(free)])


def _list_free_blocks() -> list[tuple[int, int]]:
    """Returns size and number of the free blocks of each size class of Python's allocator."""
    with open(os.memfd_create("debugmallocstats"), "w+b") as file:  # noqa: PTH123 - no name on any disk
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)  # it writes to stderr only
        try:
            getattr(sys, "_debugmallocstats", int)()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        return [(int(found["bytes"]), int(found["free"])) for found in SIZE_CLASS.finditer(file.read().decode())]


def _find_clean_code() -> Iterator[tuple[int, int]]:
    """Yields the mappings of program files that nothing was written into: most of them only loading needed.

    What is used again comes back from the page cache. A mapping with relocations in it is left alone: they would be
    lost.
    """
    mapping: list[str] = []
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            mapping = words
        elif words[:2] == ["Anonymous:", "0"] and mapping[1] in ("r--p", "r-xp") and mapping[-1].startswith("/"):
            start, end = (int(number, 16) for number in mapping[0].split("-"))
            yield start, end
