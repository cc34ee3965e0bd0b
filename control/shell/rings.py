"""`shmcam top` and `shmcam dump-ring`: tools of `shm_ring`, with this configuration's prefix and what the hub knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from control.calling import call
from control.messages import Status
from control.shell.options import Options


def top(options: Options) -> int:
    """Show the rings live; lag and laps of readers come from their heartbeats, where a hub answers."""
    from shm_ring import top as tool

    if options.help:
        return tool.main(["--help"])
    arguments = [*_with_prefix(options), *(["--json"] if options.json else [])]
    return tool.main(arguments, lambda: figures(options.socket_path))


def dump(options: Options) -> int:
    """Write the frames of a ring to files, also after a crash."""
    from shm_ring import dump as tool

    return tool.main(["--help"] if options.help else _with_prefix(options))


def figures(path: Path) -> Mapping[int, Mapping[str, object]]:
    """Return pid → what the process told in its last heartbeat; nothing without a hub."""
    reply = call(path, Status(), 1.0)
    rows = reply.data.get("processes", []) if reply.ok else []
    return {row["pid"]: {"lag": row["lag"], "laps": row["laps"]} for row in rows if row["lag"] >= 0}


def _with_prefix(options: Options) -> list[str]:
    if any(word.startswith("--prefix") for word in options.rest):
        return options.rest
    return [*options.rest, "--prefix", str(options.settings().value("ring.prefix"))]
