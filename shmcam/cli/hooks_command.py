"""`shmcam hooks`: lists the hooks of config.toml; `shmcam hooks test NAME` carries one out with a made-up event."""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from typing import Any

from shmcam.cli.options import EXIT_FAILED, Options, UsageError
from shmcam.config.optional_program import find_missing
from shmcam.control.messages import EVENTS, Event, build, fields_of, type_of
from shmcam.hooks.delivery_queue import Delivery
from shmcam.hooks.delivery_thread import deliver
from shmcam.hooks.hook import Hook, hooks_of
from shmcam.hooks.newest_picture import take_picture
from shmcam.hooks.payload import to_json, to_payload
from shmcam.runtime.clock import to_iso

SAMPLES: dict[str, Any] = {"reason": "test", "what": "this is a test", "path": "/nowhere/test.jpg"}


def main(options: Options) -> int:
    """Lists the hooks, or tries one; prints what came of it, never a secret."""
    settings = options.settings()
    hooks = {hook.name: hook for hook in hooks_of(settings)}
    if options.rest[:1] != ["test"] or len(options.rest) != 2:
        if options.rest not in ([], ["list"]):
            raise UsageError("expected: shmcam hooks [list | test NAME]")
        rows = [{"name": hook.name, "kind": hook.kind, "events": sorted(hook.events)} for hook in hooks.values()]
        lines = [f"{row['name']:<20} {row['kind']:<8} {' '.join(row['events'])}" for row in rows]
        print(json.dumps({"hooks": rows}) if options.json else "\n".join(lines) or "no hooks in config.toml")
        return 0
    name = options.rest[1]
    if name not in hooks:
        raise UsageError(f"no hook {name!r}; hooks: {', '.join(hooks) or 'none in config.toml'}")
    if need := find_missing(settings, "hooks"):
        print(f"shmcam: {need}")
        return EXIT_FAILED
    logging.basicConfig(level=logging.ERROR)  # warnings of libraries may quote an address
    hook = hooks[name]
    camera = (hook.action.cameras or settings.cameras)[0]
    event = make_sample(hook, camera)
    picture = take_picture(settings, camera) if hook.action.attach == "picture" else None
    payload = to_payload(
        event,
        ident=f"test-{secrets.token_hex(8)}",
        hook=name,
        host=socket.gethostname(),
        time_utc=to_iso(time.time_ns()),
        test=True,
    )
    began_s = time.monotonic()
    attempt = deliver(hook, Delivery(name, to_json(payload), picture), threading.Event())
    took_s = time.monotonic() - began_s
    result = {"hook": name, "state": attempt.state, "text": attempt.text, "took_s": round(took_s, 2)}
    if options.json:
        print(json.dumps({"ok": attempt.state == "done", "status": attempt.state, "data": result}))
    else:
        print(f"{name} ({hook.kind}): {attempt.state} after {took_s:.2f} s: {attempt.text}")
    return 0 if attempt.state == "done" else EXIT_FAILED


def make_sample(hook: Hook, camera: str) -> Event:
    """Returns an event as the hook could get one: its first, of this camera, with made-up values."""
    first = next(name for name in EVENTS if name in hook.events)
    names = fields_of(EVENTS[first])
    values = {name: value for name, value in SAMPLES.items() if name in names}
    values |= {"camera": camera} if "camera" in names else {}
    for name, one in names.items():
        if name not in values and one.required:
            values[name] = 1 if type_of(one) is int else "test"
    return build(EVENTS[first], values)
