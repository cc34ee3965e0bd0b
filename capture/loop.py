"""The loop of capture: opens the camera, publishes its frames, carries out commands, retries a lost camera."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from msgspec.structs import replace

from capture import desired_request
from capture.desired_request import EXIT_MEMORY, DesiredRequest, Pressure, needs_reopening
from capture.publisher import FramePublisher
from capture.rings import Rings
from capture.settings import CameraSettings
from capture.sources.base import (
    CameraError,
    CameraRequest,
    EndOfStream,
    FrameSource,
    GeometryChanged,
    OpenedSource,
    StillOpening,
)
from capture.sources.error_translation import GuardedSource, SourceFault
from capture.sources.select import Choice
from capture.status import CaptureStatus
from shm_ring import RingBusy, RingTooLarge
from shmcam.control.client import ControlClient, Delegation, Request
from shmcam.control.messages import Detect, Event
from shmcam.runtime.clock import now_ns
from shmcam.runtime.procfs import read_memory
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff

TURN_S = 0.25
"""The longest the loop waits for a frame before it looks at events; frames end the wait at once."""

EVENTS_MAX = 512
"""Events that wait for their frame at most; a healthy process has none or one."""

RETRY_LIMIT_S = 4.0
"""A camera is back within 5 s of its return; asking every 4 s costs nothing."""

GREETING_NS, AFTER_WELCOME_S = 300_000_000, 0.03
"""Longest wait for the hub before the camera is opened; it answers within 10 ms where it runs."""

ENDED_WAIT_S = 1e9
CHECK_MEMORY_NS = 5_000_000_000
STALL_PERIODS, LOST_PERIODS = 3, 5

TROUBLE: dict[type[Exception], str] = {RingBusy: "ring busy", RingTooLarge: "no memory"}
"""States of the heartbeat by what went wrong; anything else means no camera."""

log = logging.getLogger(__name__)


@dataclass
class CaptureLoop:
    """One camera's process. `choose` makes the source that the settings ask for, with the reason."""

    desired: DesiredRequest
    rings: Rings
    control: ControlClient
    status: CaptureStatus
    stop: Stop
    choose: Callable[[CameraSettings], Choice]
    detect: Callable[[Request], None]
    """Answers a `detect` request, from a thread of its own."""
    _waits: Delegation = field(init=False)
    _events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS_MAX), init=False)
    """The events that came in a wait; they take effect between two frames."""
    _exit_code: int | None = field(default=None, init=False)
    _memory_checked_ns: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._waits = self.control.delegate(self._answer_commands)

    def run(self) -> int:
        """Runs until asked to stop, or until memory runs out. Returns: the exit code."""
        backoff = Backoff(limit_s=RETRY_LIMIT_S)
        self._wait_for_hub()
        while not self._is_leaving:
            try:
                self._run_camera(backoff)
            except EndOfStream as ended:
                self._wait_before_retry("ended", str(ended), ENDED_WAIT_S)
            except (CameraError, RingBusy, RingTooLarge) as error:
                state = TROUBLE.get(type(error), "no camera")
                fault = error.__cause__ if isinstance(error, SourceFault) else None
                self.status.report_trouble(state, str(error), fault, is_lost=not isinstance(error, RingBusy))
                self._wait_before_retry(state, str(error), backoff.next_delay_s())
        self.status.log_totals()
        if self._exit_code is not None:
            self.rings.leave()  # the next process goes on where this one stopped
        return self._exit_code or 0

    def _wait_for_hub(self) -> None:
        """Takes settings changed since config.toml was read, so that no ring left by a crash is replaced in vain.

        Without a hub it goes on after GREETING_NS.
        """
        until_ns = now_ns() + GREETING_NS
        while not self.control.is_connected and now_ns() < until_ns and not self.stop.wait(0.01):
            pass
        if self.control.is_connected:
            self.stop.wait(AFTER_WELCOME_S)
        self._receive_messages()

    @property
    def _is_leaving(self) -> bool:
        return self.stop.requested or self._exit_code is not None

    def _run_camera(self, backoff: Backoff) -> None:
        """Opens the camera and publishes its frames until it must be opened anew."""
        choice = self.choose(self.desired.camera)
        choice = choice._replace(source=GuardedSource(choice.source))
        request = self.desired.request
        with closing(choice.source):
            opened = self._open(choice.source, request)
            if opened is None:
                return
            with self.status.beat_while_opening():
                self.status.log_opened(choice, opened, request)
                publisher = FramePublisher(choice.source, opened, request, self.desired, self.rings)
            try:
                self._publish_frames(choice, publisher)
            finally:
                self.status.add_counts(publisher)
                if publisher.frames:
                    backoff.reset()

    def _open(self, source: FrameSource, request: CameraRequest) -> OpenedSource | None:
        """Opens the source. Returns: None if something else is wanted meanwhile. Raises: CameraError."""
        reason = ""
        while not self._is_leaving and self.desired.request is request:
            try:
                with self.status.beat_while_opening(reason, self.rings.heartbeat), self._waits:
                    return source.open(request, self.stop)
            except StillOpening as waiting:
                reason = str(waiting)
                self.rings.heartbeat()
                self._poll()
        return None

    def _publish_frames(self, choice: Choice, publisher: FramePublisher) -> None:
        """Publishes frame after frame; returns when the camera must be opened anew, or to end."""
        source, since_ns, stalled = choice.source, now_ns(), False
        while not self._is_leaving:
            self._poll()
            if self.rings.check() or publisher.has_outgrown_rings:
                self._fit(publisher, publisher.opened)
            if self.desired.request is not publisher.request and not self._apply_request(choice, publisher):
                return
            if self.desired.pressure is Pressure.PAUSE:
                self._pause()
                publisher.resume()
                since_ns = now_ns()
            elif self._wait_for_frame(source, publisher):
                fresh = publisher.is_fresh
                publisher.publish_frame()
                if stalled or fresh:
                    self.status.report_found(choice, publisher.opened, (now_ns() - since_ns) / 1e9)
                since_ns, stalled = now_ns(), False
                if self.status.is_due("running"):
                    self.status.beat("running", self.rings.shortage, publisher)
            elif not self.stop.requested:
                stalled = self._check_stall(publisher, (now_ns() - since_ns) / 1e9, stalled)

    def _wait_for_frame(self, source: FrameSource, publisher: FramePublisher) -> bool:
        """Waits for a frame; one of another size or format gets the next generation of the rings first."""
        try:
            with self._waits:
                return source.wait(TURN_S)
        except GeometryChanged as changed:
            log.info("%s: a new generation follows", changed)
            self._fit(publisher, replace(publisher.opened, geometry=changed.geometry))
            with self._waits:
                return source.wait(TURN_S)

    def _fit(self, publisher: FramePublisher, opened: OpenedSource) -> None:
        """Makes rings anew for an open source; that can take as long as opening one."""
        with self.status.beat_while_opening("making the ring anew"):
            publisher.fit(opened)

    def _apply_request(self, choice: Choice, publisher: FramePublisher) -> bool:
        """Asks the camera for the desired request. Returns: False if it must be opened anew for it."""
        old, new = publisher.request, self.desired.request
        live = not needs_reopening(old, new) and choice.source.apply(new)
        self.status.report_request(new)
        if live:
            publisher.change(new)
        return live

    def _check_stall(self, publisher: FramePublisher, waited_s: float, stalled: bool) -> bool:
        """Reports a frame that is late. Raises: CameraError when it is so late that the camera is opened anew."""
        self.rings.heartbeat()
        period, camera = publisher.period_s, self.desired.camera
        if waited_s > max(camera.lost_after_s, LOST_PERIODS * period):
            raise CameraError(f"no frame for {waited_s:.1f} s (camera.lost_after_s = {camera.lost_after_s})")
        if waited_s <= max(camera.capture_timeout_s, STALL_PERIODS * period):
            self.status.beat("running" if publisher.frames else "starting", self.rings.shortage, publisher)
            return stalled
        if not stalled:
            log.warning("slow capture: no frame for %.1f s capture_timeout_s=%s", waited_s, camera.capture_timeout_s)
        self.status.beat("stalled", f"no frame for {waited_s:.1f} s")
        return True

    def _pause(self) -> None:
        """Waits under swap pressure; the camera stays open, its frames are not taken."""
        self.rings.heartbeat()
        self.status.beat("paused", f"swap above {self.desired.camera.swap_pause_percent:.0f} %")
        self.control.wait(TURN_S)

    def _wait_before_retry(self, state: str, reason: str, seconds: float) -> None:
        """Waits before the next try, obeying all the while; other desired end it."""
        before, camera = self.desired.request, self.desired.camera
        until_ns = now_ns() + round(seconds * 1e9)
        while not self._is_leaving and now_ns() < until_ns:
            self._poll()
            if self.desired.request is not before or self.desired.camera != camera:
                return
            self.rings.heartbeat()
            self.status.beat(state, reason)
            self.control.wait(min(TURN_S, max(0.0, (until_ns - now_ns()) / 1e9)))

    def _answer_commands(self) -> None:
        """Answers the commands of other processes and keeps their events."""
        for request in self.control.receive():
            if isinstance(request.message, Detect):
                self.detect(request)
            elif isinstance(request.message, Event):
                self._events.append(request.message)

    def _receive_messages(self) -> None:
        """Takes the messages of other processes."""
        self._answer_commands()
        while self._events:
            self.desired.take_event(self._events.popleft())

    def _poll(self) -> None:
        """Takes messages, and checks memory now and then."""
        self._receive_messages()
        if now_ns() - self._memory_checked_ns > CHECK_MEMORY_NS:
            self._memory_checked_ns = now_ns()
            self._check_memory()

    def _check_memory(self) -> None:
        camera, before = self.desired.camera, self.desired.pressure
        swap = desired_request.read_swap_percent()
        now = desired_request.decide_pressure(swap, before, camera)
        if now is not before:
            self.desired.set_pressure(now)
            self.status.report_pressure(before, now, swap, camera)
        used = read_memory()[0] / 1e6
        if camera.memory_limit_mb and used > camera.memory_limit_mb:
            log.error("memory limit reached used=%.0f MB limit=%d MB: ending", used, camera.memory_limit_mb)
            self._exit_code = EXIT_MEMORY
