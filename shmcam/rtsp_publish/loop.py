"""The day of rtsp_publish: asks recorders for packets, and sends heartbeats."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from shmcam.control.call import call
from shmcam.control.client import ControlClient
from shmcam.control.messages import Watch
from shmcam.rtsp_publish.publisher import Publisher
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

BEAT_S = 0.5
WATCH_S = 12.0
"""The recorder encodes for so long after each Watch."""
KEY_PERIOD_S = 1.0
"""A key frame is asked for no more often: recordings get it, too."""
HUB_S = 2.0


class Watcher:
    """Asks one camera's recorder for packets, which it makes only while somebody wants them."""

    def __init__(self, publisher: Publisher, socket_path: Path) -> None:
        self._publisher, self._socket_path = publisher, socket_path
        self._watched_s = -WATCH_S

    def watch(self, now_s: float) -> None:
        """Asks if it is time; not while the server is away. `now_s` is monotonic."""
        publisher, age_s = self._publisher, now_s - self._watched_s
        is_due = age_s > WATCH_S / 3 or (publisher.needs_key and age_s > KEY_PERIOD_S)
        if publisher.status.state == "retrying" or not is_due:
            return
        self._watched_s = now_s
        key, publisher.needs_key = publisher.needs_key, False
        call(self._socket_path, Watch(camera=publisher.camera, seconds=WATCH_S, key=key), HUB_S)


def run(publishers: Sequence[Publisher], control: ControlClient, socket_path: Path, stop: Stop) -> None:
    """Runs until stop is requested."""
    watchers = [Watcher(publisher, socket_path) for publisher in publishers]
    while not stop.requested:
        control.wait(BEAT_S)
        control.receive()  # no commands are ours; settings change in the file only
        now_s = time.monotonic()
        for watcher in watchers:
            watcher.watch(now_s)
        send_heartbeat(publishers, control)
    log.info("stopped units=%d", sum(publisher.status.units for publisher in publishers))


def send_heartbeat(publishers: Sequence[Publisher], control: ControlClient) -> None:
    """Sends the heartbeat: the first trouble, and sums of all cameras."""
    every = [publisher.status for publisher in publishers]
    trouble = next((f"{one.camera}: {one.status.reason}" for one in publishers if one.status.reason), "")
    states = {status.state for status in every}
    control.beat(
        next((state for state in ("retrying", "waiting") if state in states), "published"),
        trouble,
        cameras=len(every),
        units=sum(status.units for status in every),
        bytes=sum(status.sent_bytes for status in every),
        connections=sum(status.connections for status in every),
    )
