"""The deliveries of one hook, one after the other in a thread, so that a slow server holds up no other hook."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from shmcam.hooks.attempt import Attempt, find_attachment
from shmcam.hooks.command import run_command
from shmcam.hooks.delivery_queue import Delivery, DeliveryQueue
from shmcam.hooks.hook import Hook
from shmcam.hooks.payload import describe, fill_in, to_environment, to_json
from shmcam.hooks.push_message import send_push
from shmcam.hooks.webhook import send_webhook
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_MAX_S = 2.0, 600.0
LOOK_S = 30.0
"""The longest sleep of an idle thread."""


def deliver(hook: Hook, delivery: Delivery, closing: threading.Event, reached: set[str] | None = None) -> Attempt:
    """Tries once to deliver an event; `reached`: the push addresses that earlier tries reached, filled here."""
    action, payload = hook.action, msgspec.json.decode(delivery.payload)
    file = find_attachment(action.attach, str(payload["data"].get("path", "")), delivery.picture)
    if action.attach != "none":
        is_too_large = file is not None and file.size_bytes > action.attach_max_mb * 1e6
        payload["attached"] = "too large" if is_too_large else file.name if file else "missing"
        file = None if is_too_large else file
    match hook.kind:
        case "command":
            argv = hook.command_of(payload["event"])
            environment = to_environment(payload)
            return run_command(argv, to_json(payload), environment, action.timeout_s, closing)
        case "webhook":
            return send_webhook(
                action.webhook,
                payload=to_json(payload),
                ident=str(payload["id"]),
                secret=action.secret,
                headers=action.headers,
                file=file,
                timeout_s=action.timeout_s,
            )
        case _:
            text = fill_in(action.text, payload) if action.text else describe(payload)
            title = fill_in(action.title, payload)
            return send_push(action.push, title=title, text=text, file=file, reached=reached)


@dataclass
class DeliveryCounts:
    """The counts of one hook since the start of this process."""

    delivered: int = 0
    failed: int = 0
    """Tries that failed."""
    given_up: int = 0
    """Events that were never delivered: refused, too old, or at most once."""
    dropped: int = 0
    """Events that had to make room for newer ones."""
    limited: int = 0
    """Events that the rate limits left out."""


class DeliveryThread:
    """The thread of one hook."""

    def __init__(self, hook: Hook, queue: DeliveryQueue, stop: Stop) -> None:
        self.hook = hook
        self.counts = DeliveryCounts()
        self.last = ""
        """The result of the last try: ok, or why it failed."""
        self.is_failing = False
        """True while an event waits that could not be delivered."""
        self._queue = queue
        self._tried, self._reached = 0, set[str]()
        """The delivery that was tried last, and the push addresses that have it."""
        self._wake_up, self._closing = threading.Event(), threading.Event()
        self._thread = Worker(f"hook {hook.name}", self._work, stop)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wake_up(self) -> None:
        """Tells the thread that an event waits."""
        self._wake_up.set()

    def ask_to_end(self) -> None:
        """Asks the thread to end; a running command is killed."""
        self._closing.set()
        self._wake_up.set()

    def join(self, timeout_s: float) -> None:
        """Waits for the end of the thread; a request under way ends with the process, and is sent again."""
        self._thread.join(timeout_s)

    def to_figures(self, waiting: int) -> dict[str, Any]:
        """Returns the state of this hook, for the heartbeat."""
        return {"kind": self.hook.kind, **asdict(self.counts), "waiting": waiting, "last": self.last}

    def _work(self) -> None:
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        while not self._closing.is_set():
            self._wake_up.clear()
            delivery = self._queue.find_first(self.hook.name)
            if delivery is None:
                self.is_failing = False
                self._wake_up.wait(LOOK_S)
            elif (pause_s := self._handle(delivery, backoff)) > 0:
                self._closing.wait(pause_s)

    def _handle(self, delivery: Delivery, backoff: Backoff) -> float:
        """Deals with the oldest delivery. Returns the pause before the next try; 0: none."""
        age_s = time.time() - delivery.created_utc_s
        if age_s > self.hook.action.keep_s:
            self._give_up(delivery, f"not delivered for {age_s:.0f} s")
            return 0.0
        # At most once: removed before it is carried out, so that neither a kill -9 nor a full disk can repeat it.
        if not self.hook.is_repeated and not self._queue.remove(delivery.number):
            self.last = "not carried out: the disk takes nothing, a restart could repeat it"
            self._give_up(delivery, self.last)
            return 0.0
        if delivery.number != self._tried:
            self._tried, self._reached = delivery.number, set()
        attempt = deliver(self.hook, delivery, self._closing, self._reached)
        if attempt.state == "done":
            self.counts.delivered += 1
            self.last, self.is_failing = "ok", False
            log.info("hook=%s delivered: %s", self.hook.name, attempt.text)
            self._queue.remove(delivery.number)
            backoff.reset()
            return 0.0
        self.counts.failed += 1
        if attempt.text != self.last:  # a server that is away for hours is one line
            log.warning("hook=%s %s: %s", self.hook.name, attempt.state, attempt.text)
        self.last = attempt.text
        if attempt.state == "refused" or not self.hook.is_repeated:
            self._give_up(delivery, attempt.text)
            return 0.0
        self.is_failing = True
        return max(backoff.next_delay_s(), attempt.retry_after_s)

    def _give_up(self, delivery: Delivery, why: str) -> None:
        self.counts.given_up += 1
        log.warning("hook=%s event given up: %s", self.hook.name, why)
        self._queue.remove(delivery.number)
