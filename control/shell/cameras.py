"""`shmcam cameras`: every camera this machine can see, and what the configured ones deliver if the service runs."""

from __future__ import annotations

import json

from control.calling import call
from control.helping import details
from control.messages import Cameras
from control.shell.options import Options
from control.table import BY_NAME


def main(options: Options) -> int:
    """Look for cameras in this process, so that it works before the first start, and ask the hub for the others."""
    if options.help:
        print("\n".join(details(BY_NAME["cameras"])))
        return 0
    from capture import detect

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
