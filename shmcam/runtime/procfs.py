"""Reads /proc: the memory of a process, the processes that hold a device, and the identity of this boot.

shm_ring reads /proc by its own code (readers of a ring, life of a writer), as that folder imports nothing of ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")


class DeviceHolder(Struct, frozen=True):
    """A process that uses devices."""

    pid: int
    name: str
    """The program's name as the kernel knows it: its first 15 characters."""
    command: str
    """The command line, with spaces between its words."""
    devices: tuple[str, ...]
    """The devices that it uses, by the names that were given, sorted."""

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def find_holders(devices: Iterable[str]) -> list[DeviceHolder]:
    """Returns the processes other than this one that have one of `devices` open, by pid.

    Processes of other users are not visible without root: the list may be empty although the device is busy.
    """
    wanted = {os.path.realpath(device): device for device in devices}
    users: dict[int, set[str]] = {}
    for process in PROC.iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it has ended, or is another user's
                paths = {_target(link) for link in (process / "fd").iterdir()}
                users[int(process.name)] = {wanted[path] for path in paths & wanted.keys()}
    return _holders(users)


def find_lock_holders(devices: Iterable[str], locks: Path = PROC / "locks") -> list[DeviceHolder]:
    """Returns the processes other than this one that have one of `devices` locked, by pid."""
    wanted = {}
    for device in devices:
        with suppress(OSError):
            status = Path(device).stat()
            wanted[f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"] = device
    users: dict[int, set[str]] = {}
    with suppress(OSError):
        for line in locks.read_text().splitlines():
            words = line.split()  # 1: POSIX ADVISORY WRITE 4711 00:05:337 0 EOF
            if "->" not in words and len(words) >= 6 and words[5] in wanted:
                users.setdefault(int(words[4]), set()).add(wanted[words[5]])
    return _holders(users)


def name_holders(devices: Iterable[str]) -> str:
    """Returns the processes that have one of `devices` open: `held by motion (pid 812)`; empty if none is seen."""
    holders = ", ".join(map(str, find_holders(devices)))
    return f"held by {holders}" if holders else ""


def _holders(users: dict[int, set[str]]) -> list[DeviceHolder]:
    return [
        DeviceHolder(
            pid,
            _read(pid, "comm").strip() or "a process",
            _read(pid, "cmdline").replace("\0", " ").strip(),
            tuple(sorted(devices)),
        )
        for pid, devices in sorted(users.items())
        if devices and pid != os.getpid()
    ]


def _read(pid: int, name: str) -> str:
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except OSError:
        return ""


def _target(link: Path) -> str:
    with suppress(OSError):
        return str(link.readlink())
    return ""


def read_memory(pid: int | str = "self") -> tuple[int, int]:
    """Reads a process's own resident memory and what is swapped out, in bytes.

    Shared memory is left out: the pages of a ring count in every process that reads it.
    """
    sizes = {"VmRSS": 0, "RssShmem": 0, "VmSwap": 0}
    with (PROC / str(pid) / "status").open() as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name in sizes:
                sizes[name] = int(value.split()[0]) * 1024  # the kernel writes "kB" and means KiB
    return sizes["VmRSS"] - sizes["RssShmem"], sizes["VmSwap"]


@cache
def boot_id() -> str:
    """Returns the identity of the kernel's present boot: times of the sensor clock mean nothing in another one."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def run_id() -> str:
    """Returns the name of this run of the service: the pid of our parent (supervisord) and its start time."""
    parent_pid = os.getppid()
    return f"{parent_pid}@{_start_ticks_of(parent_pid) or '?'}"


def start_of(pid: int, otherwise_s: float) -> float:
    """Returns when a process started, in seconds of CLOCK_BOOTTIME; `otherwise_s` if it is not there."""
    ticks = _start_ticks_of(pid)
    return int(ticks) / os.sysconf("SC_CLK_TCK") if ticks else otherwise_s


def _start_ticks_of(pid: int) -> str:
    """Returns field 22 of proc(5)'s stat; empty for a process that is not there."""
    return next(iter(_read(pid, "stat").rpartition(")")[2].split()[19:20]), "")


def find_commands() -> Iterator[tuple[int, list[str]]]:
    """Yields pid and argument list of each process that this user may see."""
    for path in PROC.glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
        except OSError:  # it has ended
            continue
        yield int(path.parent.name), arguments


def read_service_bytes() -> int:
    """Returns what the programs of this service have taken by now, rings not counted; 0 outside of supervisord."""
    if "SUPERVISOR_ENABLED" not in os.environ:
        return 0
    parent = os.getppid()
    children = PROC / f"{parent}/task/{parent}/children"
    try:
        return sum(map(_own_bytes_of, [parent, *map(int, children.read_text().split())]))
    except OSError:  # a kernel without that file; or the parent has ended, and this process ends as well
        return 0


def _own_bytes_of(pid: int) -> int:
    """Returns anonymous memory and a share of the files of a process (proc_pid_smaps_rollup(5)); 0: it has ended."""
    try:
        text = (PROC / f"{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(kb) * 1024 for kb in re.findall(r"^Pss_(?:Anon|File): +(\d+)", text, re.MULTILINE))
