"""The hooks process's day: takes events, decides which hooks want them, puts them into the queue."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from shmcam.config.settings import Settings, apply_change
from shmcam.control.client import ControlClient
from shmcam.control.messages import Event, EventId, SettingChanged
from shmcam.hooks.attempt import find_attachment
from shmcam.hooks.delivery_queue import Delivery, DeliveryQueue
from shmcam.hooks.delivery_thread import DeliveryThread
from shmcam.hooks.hook import EventLimit, Hook, hooks_of
from shmcam.hooks.newest_picture import take_picture
from shmcam.hooks.payload import to_json, to_payload
from shmcam.runtime.clock import to_iso
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Interval

log = logging.getLogger(__name__)

BEAT_S = 0.5
DISK_RETRY_S = 5.0
"""Seconds between two tries to bring what waits in memory to a disk that took nothing."""
SHOWN_MAX = 5
"""Hooks in the reason of the heartbeat at most."""


@dataclass
class Hooks:
    """The hooks of a configuration with their threads."""

    settings: Settings
    control: ControlClient
    queue: DeliveryQueue
    threads: Mapping[str, DeliveryThread]
    limits: dict[str, EventLimit] = field(default_factory=dict)
    host: str = field(default_factory=socket.gethostname)
    disk_timer: Interval = field(default_factory=Interval)

    def __post_init__(self) -> None:
        for name, thread in self.threads.items():
            action = thread.hook.action
            self.limits[name] = EventLimit(action.min_interval_s, action.max_per_hour)


def run(hooks: Hooks, stop: Stop) -> None:
    """Works until stop is requested."""
    while not stop.requested:
        hooks.control.wait(BEAT_S)
        for request in hooks.control.receive():
            event = request.message
            if isinstance(event, SettingChanged):
                hooks.settings = apply_change(hooks.settings, event.key, event.new, event.camera)
                for hook in hooks_of(hooks.settings):  # night.hook_timeout_s
                    hooks.threads[hook.name].hook = hook
            if isinstance(event, Event):
                take_event(event, request.event_id, hooks)
        beat(hooks)


def take_event(event: Event, event_id: EventId | None, hooks: Hooks) -> None:
    """Puts an event into the queues of the hooks that want it."""
    if event_id is not None and hooks.queue.is_seen(event_id):
        return
    now_s, local = time.time(), time.localtime()
    camera = str(getattr(event, "camera", ""))
    wanted = []
    for name, thread in hooks.threads.items():
        if not thread.hook.takes(event, local.tm_hour * 60 + local.tm_min):
            continue
        if hooks.limits[name].take(camera, time.monotonic()):
            wanted.append(thread)
        else:
            thread.counts.limited += 1
    if not wanted:
        hooks.queue.put([], event_id, {})  # left out once is left out after a restart too
        return
    ident = "-".join(f"{number:x}" for number in event_id) if event_id else f"{time.time_ns():x}"
    picture = _take_picture(event, [thread.hook for thread in wanted], hooks, camera)
    deliveries = []
    for thread in wanted:
        name = thread.hook.name
        payload = to_payload(event, ident=ident, hook=name, host=hooks.host, time_utc=to_iso(int(now_s * 1e9)))
        needs_picture = thread.hook.action.attach == "picture"
        deliveries.append(Delivery(name, to_json(payload), picture if needs_picture else None, now_s))
    limits = {thread.hook.name: thread.hook.action.queue_max for thread in wanted}
    dropped = hooks.queue.put(deliveries, event_id, limits)
    for thread in wanted:
        thread.counts.dropped += dropped[thread.hook.name]
        thread.wake_up()


def _take_picture(event: Event, wanted: list[Hook], hooks: Hooks, camera: str) -> bytes | None:
    """Returns the newest picture if a hook attaches one and the event has none of its own."""
    if all(hook.action.attach != "picture" for hook in wanted):
        return None
    if find_attachment("picture", str(getattr(event, "path", "")), None) is not None:
        return None
    return take_picture(hooks.settings, camera or hooks.settings.cameras[0])


def beat(hooks: Hooks) -> None:
    """Sends a heartbeat: totals, and each hook's own figures."""
    if hooks.disk_timer.take_due(time.monotonic_ns(), DISK_RETRY_S):
        hooks.queue.retry()
    waiting = hooks.queue.count()
    rows = {name: thread.to_figures(waiting.get(name, 0)) for name, thread in hooks.threads.items()}
    failing = [
        f"{name}: {thread.last}, {waiting.get(name, 0)} wait"
        for name, thread in hooks.threads.items()
        if thread.is_failing
    ]
    totals = {key: sum(row[key] for row in rows.values()) for key in ("delivered", "waiting", "given_up", "dropped")}
    reason = "; ".join([*([hooks.queue.problem] if hooks.queue.problem else []), *failing[:SHOWN_MAX]])
    hooks.control.beat("running" if rows else "idle", reason, hooks=rows, **totals)
