"""The hooks process: carries events to commands, webhooks and push services."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from shmcam.control.client import ControlClient
from shmcam.hooks.delivery_queue import DeliveryQueue
from shmcam.hooks.delivery_thread import DeliveryThread
from shmcam.hooks.hook import hooks_of
from shmcam.hooks.loop import Hooks, run
from shmcam.runtime.procfs import run_id
from shmcam.runtime.startup import Process, startup

log = logging.getLogger("shmcam.hooks")

OOM_SCORE_ADJ = 300
"""The kernel ends this one before the programs that handle frames; its queue is on the disk."""

JOIN_S = 1.0
"""For all threads together when the process stops."""

OVERLAP_NS = 5_000_000_000
"""Events of several processes come in any order; what came since the last one, less this, is asked for again."""


@contextmanager
def open_threads(process: Process, queue: DeliveryQueue) -> Iterator[dict[str, DeliveryThread]]:
    """Runs a thread for each hook until the block ends."""
    threads = {hook.name: DeliveryThread(hook, queue, process.stop) for hook in hooks_of(process.settings)}
    if gone := queue.remove_others(threads):
        log.warning("events of hooks that are no more in config.toml removed=%d", gone)
    for thread in threads.values():
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads.values():
            thread.ask_to_end()
        end_s = time.monotonic() + JOIN_S
        for thread in threads.values():
            thread.join(max(0.0, end_s - time.monotonic()))


def main() -> int:
    """Runs until stop is requested; bad configuration: one line, exit 78."""
    with startup("hooks", oom_score_adj=OOM_SCORE_ADJ) as process:
        settings, stop = process.settings, process.stop
        wanted = frozenset().union(*(hook.events for hook in hooks_of(settings)))
        with (
            DeliveryQueue(settings.paths.library.with_name("hooks.sqlite3"), run_id()) as queue,
            open_threads(process, queue) as threads,
            ControlClient(
                "hooks",
                socket_path=settings.socket_path,
                stop=stop,
                subscribe=tuple(sorted(wanted)),
                since_ns=max(0, queue.get_since_ns() - OVERLAP_NS),
            ) as control,
        ):
            log.info("ready hooks=%s", ",".join(threads) or "-")
            run(Hooks(settings, control, queue, threads), stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
