"""Reads /proc: the memory of a process, which processes hold a device, and which boot of the machine this is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path


def memory(pid: int | str = "self") -> tuple[int, int]:
    """Return a process's own resident memory and what is swapped out, in bytes, from /proc.

    Shared memory is left out: the ring's pages count in every process that looks at it, and belong to none.
    """
    found = {"VmRSS": 0, "RssShmem": 0, "VmSwap": 0}
    with Path(f"/proc/{pid}/status").open() as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024  # the kernel writes "kB" and means KiB
    return found["VmRSS"] - found["RssShmem"], found["VmSwap"]


PROC = Path("/proc")


def holders(devices: Iterable[str], proc: Path = PROC) -> list[tuple[int, str]]:
    """Processes other than this one that have one of `devices` open: (pid, name), by pid.

    Processes of other users are not visible without root; then the list may be empty although the device is busy.
    """
    wanted = {os.path.realpath(device) for device in devices}
    found = []
    for process in proc.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with suppress(OSError):  # gone meanwhile, or not ours to look at
            if any(_target(link) in wanted for link in (process / "fd").iterdir()):
                found.append((int(process.name), (process / "comm").read_text().strip()))
    return sorted(found)


def held_by(devices: Iterable[str]) -> str:
    """The holders in words, `held by motion (pid 812)`; empty if nobody is seen to hold them."""
    names = [f"{name} (pid {pid})" for pid, name in holders(devices)]
    return f"held by {', '.join(names)}" if names else ""


def _target(link: Path) -> str:
    with suppress(OSError):
        return str(link.readlink())
    return ""


@cache
def boot_id() -> str:
    """The identity of the kernel's present boot: times of the sensor clock mean nothing in another one."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()
