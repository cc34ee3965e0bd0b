"""One faulty disk for all tests: the n-th call of any program fails, writes are short, what was not synced is lost.

with FaultyDisk(folder) as disk:
    process = subprocess.Popen(command, env=disk.environ())
    with disk.failing("write", errno.ENOSPC, first=3):
        ...

`faulty.c` is compiled once for each run of the tests; the processes find it by LD_PRELOAD and the page by FAULTY_PAGE.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import mmap
import os
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("faulty.c")
CALLS = {"open": 1, "write": 2, "sync": 4, "name": 8, "lock": 16, "size": 32}
"""What may fail: open for writing, write, fsync, (rename, link, unlink, mkdir), locks, (truncate, fallocate)."""
SHORT = 0xFFFF
"""Instead of an errno: half of the bytes are written."""
ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EROFS", "EDQUOT", "ENOLCK", "ENOTSUP")} | {
    "short": SHORT
}
EVERY = 0xFFFFFFFF

_RULE, _CLOCK = struct.Struct("<IiIIII"), struct.Struct("<q")
_PIDS_AT, _PIDS, _UNDER_AT = 32, 16, 96
"""`struct page` of faulty.c."""


@functools.cache
def library() -> Path | None:
    """Returns the compiled library, None where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"shmcam-faulty-{os.getuid()}-{version}.so"
    if not target.exists():
        mine = target.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(mine), str(SOURCE), "-ldl"], check=True)
        mine.rename(target)
    return target


needs_faulty_disk = pytest.mark.skipif(library() is None, reason="no C compiler for the faulty disk")


class FaultyDisk:
    """The page that says what fails below one folder."""

    def __init__(self, folder: Path, journal: Path | None = None) -> None:
        self.folder = folder.resolve()
        self.journal = journal
        self._file = tempfile.NamedTemporaryFile(prefix="shmcam-faults-", suffix=".page")  # noqa: SIM115
        self._file.truncate(mmap.PAGESIZE)
        self._page = mmap.mmap(self._file.fileno(), mmap.PAGESIZE)
        under = os.fsencode(self.folder)
        self._page[_UNDER_AT : _UNDER_AT + len(under)] = under

    def __enter__(self) -> FaultyDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        self._page.close()
        self._file.close()

    def environ(self) -> dict[str, str]:
        """The environment of a process that is to have this disk."""
        own = {"LD_PRELOAD": str(library()), "FAULTY_PAGE": self._file.name}
        if self.journal is not None:
            own["FAULTY_JOURNAL"] = str(self.journal)
        return {**os.environ, **own}

    def fail(
        self, calls: str | Collection[str], error: int, *, first: int = 1, last: int = EVERY, pids: Collection[int] = ()
    ) -> None:
        """From now on these calls fail, from the `first` to the `last`, of these processes (none: of all)."""
        names = (calls,) if isinstance(calls, str) else calls
        self.heal()
        for slot, pid in enumerate((*pids, *[0] * _PIDS)[:_PIDS]):
            struct.pack_into("<I", self._page, _PIDS_AT + 4 * slot, pid)
        _RULE.pack_into(self._page, 0, 0, error, first, last, 0, 0)
        struct.pack_into("<I", self._page, 0, sum(CALLS[name] for name in names))  # last: from here on it counts

    def heal(self) -> None:
        """Everything works again."""
        struct.pack_into("<I", self._page, 0, 0)

    @property
    def seen(self) -> int:
        """How many calls of the kind there have been since `fail`."""
        return int(_RULE.unpack_from(self._page, 0)[4])

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return int(_RULE.unpack_from(self._page, 0)[5])

    @contextmanager
    def failing(self, calls: str | Collection[str], error: int, **more: object) -> Iterator[FaultyDisk]:
        """`fail` for the length of the block."""
        self.fail(calls, error, **more)  # type: ignore[arg-type]
        try:
            yield self
        finally:
            self.heal()

    def step_clock(self, offset_s: float) -> None:
        """The wall clock is this far off, for every process; CLOCK_MONOTONIC stays."""
        _CLOCK.pack_into(self._page, 24, int(offset_s * 1e9))


# ---- the disk after a power cut

_RECORD = struct.Struct("<IIIIq")
WRITE, SYNC, CREATE, RENAME, LINK, UNLINK, MKDIR, TRUNCATE = range(1, 9)


@dataclass
class _Inode:
    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes since the last fsync (place, bytes), and sizes (size, None)."""

    def apply(self, place: int, data: bytes | None, content: bytearray) -> None:
        if data is None:
            del content[place:]
            content.extend(bytes(place - len(content)))
            return
        content.extend(bytes(max(0, place - len(content))))
        content[place : place + len(data)] = data


@dataclass(frozen=True)
class Change:
    """One record of the journal."""

    kind: int
    path: str
    inode: int
    place: int
    more: bytes


def read_journal(journal: Path) -> list[Change]:
    """Returns what the processes changed, in order."""
    data, changes, at = journal.read_bytes(), [], 0
    while at + _RECORD.size <= len(data):
        kind, path_length, more_length, inode, place = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        path, more = data[at : at + path_length], data[at + path_length : at + path_length + more_length]
        at += path_length + more_length
        changes.append(Change(kind, os.fsdecode(path), inode, place, more))
    return changes


def make_disk_after_power_cut(changes: list[Change], old: Path, new: Path, rng: random.Random) -> None:
    """Makes in `new` what a power cut after these changes leaves of `old`.

    A file holds what it held at its last fsync, and of what was written later any part (each write whole, torn or not
    at all). A name made, moved or removed after its folder's last fsync is as before, or as after: by chance, in order.
    """
    files: dict[str, _Inode] = {}
    by_number: dict[int, _Inode] = {}
    names: dict[str, _Inode | None] = {}
    """The names on the disk (None: a folder)."""
    waiting: list[tuple[str, list[tuple[str, _Inode | None, bool]]]] = []
    """Changes of names that no fsync of their folder has confirmed: (folder, [(path, what, there)])."""

    def write_inode(path: str, number: int) -> _Inode:
        plain = path.removesuffix(" (deleted)")
        if number and number in by_number:
            return by_number[number]
        inode = files.setdefault(plain, _Inode())
        if number:
            by_number[number] = inode
        return inode

    for change in changes:
        path, folder = change.path, str(Path(change.path).parent)
        if change.kind == CREATE:
            files[path] = by_number[change.inode] = inode = _Inode()
            waiting.append((folder, [(path, inode, True)]))
        elif change.kind in (WRITE, TRUNCATE):
            inode = write_inode(path, change.inode)
            data = change.more if change.kind == WRITE else None
            place = len(inode.content) if change.place < 0 else change.place
            inode.unsynced.append((place, data))
            inode.apply(place, data, inode.content)
        elif change.kind == SYNC and (path in files or change.inode in by_number):
            inode = write_inode(path, change.inode)
            inode.synced, inode.unsynced = bytes(inode.content), []
        elif change.kind == SYNC:  # a folder
            for _, steps in [item for item in waiting if item[0] == path]:
                for name, what, there in steps:
                    if there:
                        names[name] = what
                    else:
                        names.pop(name, None)
            waiting = [item for item in waiting if item[0] != path]
        elif change.kind in (RENAME, LINK):
            target, source_inode = os.fsdecode(change.more), files.get(path)
            if source_inode is None:
                continue  # a folder, or one that was there before
            files[target] = source_inode
            steps: list[tuple[str, _Inode | None, bool]] = [(target, source_inode, True)]
            if change.kind == RENAME:
                files.pop(path, None)
                steps.append((path, None, False))
            waiting.append((str(Path(target).parent), steps))
        elif change.kind == UNLINK:
            files.pop(path, None)
            waiting.append((folder, [(path, None, False)]))
        elif change.kind == MKDIR:
            waiting.append((folder, [(path, None, True)]))
    kept = waiting[: rng.randint(0, len(waiting))]  # a journaling file system keeps the order of names
    for _, steps in kept:
        for name, what, there in steps:
            if there:
                names[name] = what
            else:
                names.pop(name, None)
    new.mkdir(parents=True, exist_ok=True)
    for name, found in sorted(names.items(), key=lambda item: item[0]):
        place = new / Path(name).relative_to(old)
        if found is None:
            place.mkdir(parents=True, exist_ok=True)
            continue
        content = bytearray(found.synced)
        for at, data in found.unsynced:
            luck = rng.random()
            if luck < 1 / 3:
                continue
            found.apply(at, data if data is None or luck > 2 / 3 else data[: rng.randint(0, len(data))], content)
        if place.parent.is_dir():
            place.write_bytes(content)
