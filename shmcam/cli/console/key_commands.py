"""The commands behind the keys r and s of `shmcam console` and `shmcam view`, for all cameras."""

from __future__ import annotations

from pathlib import Path

from shmcam.control.call import call
from shmcam.control.messages import Command, Record, Reply, Snapshot, Status


def command_of_key(key: str, socket_path: Path, timeout_s: float) -> Command:
    """Returns the command of r or s; r stops when any camera records, else it starts."""
    if key == "s":
        return Snapshot()
    rows = call(socket_path, Status(), timeout_s).data.get("cameras", [])
    return Record(action="stop" if any(row["recording"] for row in rows) else "start")


def first_line_of(reply: Reply) -> str:
    """Returns what a line of the screen shows of a reply."""
    return reply.text.splitlines()[0] if reply.text else reply.status
