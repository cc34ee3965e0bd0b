"""What a process holds of the machine's memory, from /proc."""

from __future__ import annotations

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
