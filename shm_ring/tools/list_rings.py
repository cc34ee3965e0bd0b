"""The rings of this machine and the processes that map them; for top, dump and `python -m shm_ring`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shm_ring import segment
from shm_ring.errors import RingError
from shm_ring.machine.available_memory import SHM_FOLDER


class Reader(NamedTuple):
    """A process that has a ring mapped."""

    pid: int
    role: str
    """`analyzer` for `python -m analyzer …`, else the program's name."""
    writable: bool
    """True if its mapping can write: only the writer's should."""


def list_rings(prefix: str | None = None) -> list[str]:
    """Returns the names of all segments that are rings of this release, sorted; damaged ones are left out."""
    names = [f"/{path.name}" for path in SHM_FOLDER.iterdir() if path.is_file()]
    return sorted(name for name in names if (prefix is None or name.startswith(f"/{prefix}.")) and _is_ring(name))


def _is_ring(name: str) -> bool:
    try:
        fd = segment.open_segment(name)
    except RingError:
        return False
    try:
        segment.read_header(fd, name)
    except RingError:
        return False
    finally:
        os.close(fd)
    return True


def find_readers(names: list[str]) -> dict[str, list[Reader]]:
    """Returns, per ring, the processes that map it, by looking through /proc (readers register nowhere)."""
    found: dict[str, list[Reader]] = {name: [] for name in names}
    wanted = {f"{SHM_FOLDER}{name}": name for name in names}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            for path, writable in _mapped_segments(process, wanted):
                found[wanted[path]].append(Reader(int(process.name), _role_of(process), writable))
    return found


def _mapped_segments(process: Path, wanted: dict[str, str]) -> set[tuple[str, bool]]:
    """Returns the segments that a process maps; none when it has gone or is another user's."""
    try:
        lines = (process / "maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {(path, "w" in line.split()[1]) for line in lines if (path := line[line.find("/") :]) in wanted}


def _role_of(process: Path) -> str:
    """Names a process by its command line."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return " ".join(_role_words([word.decode(errors="replace") for word in words if word])) or "?"


def _role_words(words: list[str]) -> Iterator[str]:
    """Yields what is worth showing: the module of `python -m module`, or the script, else the program."""
    if "-m" in words[:-1]:
        yield words[words.index("-m") + 1]
        return
    script = next((word for word in words[1:] if word.endswith(".py")), words[0] if words else "")
    yield Path(script).name
