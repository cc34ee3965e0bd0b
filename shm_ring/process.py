"""Whether the process that wrote its pid into shared memory is still the one that bears it."""

from __future__ import annotations

from pathlib import Path


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is none (proc(5), stat field 22)."""
    try:
        stat = Path(f"/proc/{pid}/task/{pid}/stat").read_bytes()  # qemu-user invents /proc/<own pid>/stat, not this
    except OSError:
        return 0
    fields = stat[stat.rfind(b")") + 2 :].split()  # the name before may hold spaces and brackets
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def pid_space() -> int:
    """Return the inode of this process's pid namespace (namespaces(7)); pids of another one mean nothing here."""
    return Path("/proc/self/ns/pid").stat().st_ino


def alive(pid: int, started: int) -> bool:
    """Tell whether the process with this pid is the one that started then."""
    return pid > 0 and started > 0 and start_time(pid) == started
