"""`shmcam cameras`, `shmcam top`, `shmcam dump-ring`: the cameras of this machine and the rings of this configuration.

`top` and `dump-ring` are tools of `shm_ring`; here they get the prefix of config.toml and the hub's figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from shmcam.cli.options import Options
from shmcam.control.call import call
from shmcam.control.messages import Cameras, Status


def show_rings(options: Options) -> int:
    """Shows the rings live; the readers' lag and laps come from their heartbeats, if a hub answers."""
    from shm_ring.tools import top

    if options.help:
        return top.main(["--help"])
    arguments = [*_add_prefix(options), *(["--json"] if options.json else [])]
    return top.main(arguments, lambda: ask_figures(options.socket_path))


def dump_ring(options: Options) -> int:
    """Writes the frames of a ring to files, also after a crash."""
    from shm_ring.tools import dump_ring

    return dump_ring.main(["--help"] if options.help else _add_prefix(options))


def ask_figures(path: Path) -> Mapping[int, Mapping[str, object]]:
    """Returns pid → lag and laps of its last heartbeat; nothing without a hub."""
    reply = call(path, Status(), 1.0)
    rows = reply.data.get("processes", []) if reply.ok else []
    return {row["pid"]: {"lag": row["lag"], "laps": row["laps"]} for row in rows if row["lag"] >= 0}


def _add_prefix(options: Options) -> list[str]:
    if any(word.startswith("--prefix") for word in options.rest):
        return options.rest
    return [*options.rest, "--prefix", str(options.settings().value("ring.prefix"))]


def list_cameras(options: Options) -> int:
    """Prints the cameras that this machine can see and those that the service delivers.

    This process looks for them itself, so that the word works before the first start; the hub tells the others.
    """
    from capture.sources import detect

    cameras = detect.detect_cameras()
    reply = call(options.socket_path, Cameras(), options.timeout)
    if options.json:
        configured = reply.data.get("cameras", []) if reply.ok else []
        print(json.dumps({"found": detect.rows_of(cameras), "configured": configured}, indent=1, ensure_ascii=False))
        return 0
    print("this machine can see:")
    print("\n".join(f"  {camera.line()}" for camera in cameras))
    print("the service delivers:" if reply.ok else "the service does not run here")
    if reply.ok:
        print("\n".join(f"  {line}" for line in reply.text.splitlines()))
    return 0
