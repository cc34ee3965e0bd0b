"""`shmcam top` and `shmcam dump-ring`: tools of `shm_ring`, with this configuration's prefix and what the hub knows.

`shmcam cameras`: every camera this machine can see, and what the configured ones deliver if the service runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from shmcam.cli.options import Options
from shmcam.control.call import call
from shmcam.control.messages import Cameras, Status


def top(options: Options) -> int:
    """Show the rings live; lag and laps of readers come from their heartbeats, where a hub answers."""
    from shm_ring.tools import top as tool

    if options.help:
        return tool.main(["--help"])
    arguments = [*_with_prefix(options), *(["--json"] if options.json else [])]
    return tool.main(arguments, lambda: figures(options.socket_path))


def dump(options: Options) -> int:
    """Write the frames of a ring to files, also after a crash."""
    from shm_ring.tools import dump as tool

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


def main(options: Options) -> int:
    """Look for cameras in this process, so that it works before the first start, and ask the hub for the others."""
    from capture.sources import detect

    found = detect.cameras()
    reply = call(options.socket_path, Cameras(), options.timeout)
    if options.json:
        configured = reply.data.get("cameras", []) if reply.ok else []
        print(json.dumps({"found": detect.rows(found), "configured": configured}, indent=1, ensure_ascii=False))
        return 0
    print("this machine can see:")
    print("\n".join(f"  {camera.line()}" for camera in found))
    print("the service delivers:" if reply.ok else "the service does not run here")
    if reply.ok:
        print("\n".join(f"  {line}" for line in reply.text.splitlines()))
    return 0
