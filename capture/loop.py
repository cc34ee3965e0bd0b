"""What capture does all day: open the camera, publish its frames, obey, and never give up on a camera that is away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from capture import camera_request
from capture.camera_request import EXIT_MEMORY, DesiredRequest, Pressure, needs_reopening, period_s
from capture.publisher import FramePublisher
from capture.rings import Rings
from capture.settings import CameraSettings
from capture.sources.base import CameraError, EndOfStream, OpenedSource
from capture.sources.select import Choice
from capture.status import CaptureStatus
from shm_ring import RingBusy, RingTooLarge
from shmcam.control.client import ControlClient, Request
from shmcam.control.messages import Detect, Event
from shmcam.runtime.clock import now_ns
from shmcam.runtime.procfs import read_memory
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff

TURN_S = 0.25
"""The longest the loop waits for a frame before it looks at messages; frames end the wait at once."""

RETRY_LIMIT_S = 4.0
"""A camera is back within 5 s of its return; asking every 4 s costs nothing."""

GREETING_NS, AFTER_WELCOME_S = 300_000_000, 0.03
"""How long to wait for the hub before the camera is opened; it answers within 10 ms where it runs."""

FOR_EVER_S = 1e9
CHECK_MEMORY_NS = 5_000_000_000
STALL_PERIODS, LOST_PERIODS = 3, 5

TROUBLE: dict[type[Exception], str] = {RingBusy: "ring busy", RingTooLarge: "no memory"}
"""States of the heartbeat by what went wrong; anything else means no camera."""

log = logging.getLogger(__name__)


@dataclass
class CaptureLoop:
    """One camera's process. `choose` makes the source that the settings ask for, with the reason."""

    wishes: DesiredRequest
    rings: Rings
    control: ControlClient
    report: CaptureStatus
    stop: Stop
    choose: Callable[[CameraSettings], Choice]
    detect: Callable[[Request], None]
    """Answers a `detect` request, from a thread of its own."""
    _exit_code: int | None = field(default=None, init=False)
    _memory_checked_ns: int = field(default=0, init=False)

    def run(self) -> int:
        """Until asked to stop, or until memory runs out. Returns: the exit code."""
        backoff = Backoff(limit_s=RETRY_LIMIT_S)
        self._greet()
        while not self._leaving:
            try:
                self._serve(backoff)
            except EndOfStream as ended:
                self._rest("ended", str(ended), FOR_EVER_S)
            except (CameraError, RingBusy, RingTooLarge) as error:
                state = TROUBLE.get(type(error), "no camera")
                self.report.lost(state, str(error))
                self._rest(state, str(error), backoff.delay_s())
        self.report.ended()
        if self._exit_code is not None:
            self.rings.leave()  # the next process goes on where this one stopped
        return self._exit_code or 0

    def _greet(self) -> None:
        """Hear what was set since config.toml was read, so that a ring a crash left behind is not replaced for nothing.

        Without a hub it goes on after GREETING_NS.
        """
        until_ns = now_ns() + GREETING_NS
        while not self.control.is_connected and now_ns() < until_ns and not self.stop.wait(0.01):
            pass
        if self.control.is_connected:
            self.stop.wait(AFTER_WELCOME_S)
        self._listen()

    @property
    def _leaving(self) -> bool:
        return self.stop.requested or self._exit_code is not None

    def _serve(self, backoff: Backoff) -> None:
        """Open the camera and deliver until it must be opened anew."""
        choice = self.choose(self.wishes.camera)
        request = self.wishes.request
        with closing(choice.source):
            with self.report.opening():
                opened = choice.source.open(request, self.stop)
                self.report.opened(choice, opened, request)
                delivery = FramePublisher(choice.source, opened, request, self.wishes, self.rings)
            try:
                self._deliver(choice, opened, delivery)
            finally:
                self.report.closed(delivery)
                if delivery.frames:
                    backoff.reset()

    def _deliver(self, choice: Choice, opened: OpenedSource, delivery: FramePublisher) -> None:
        """Frame after frame; returns when the camera must be opened anew, or to leave."""
        source, since_ns, stalled = choice.source, now_ns(), False
        while not self._leaving:
            self._hear()
            if self.rings.look():
                return
            if self.wishes.request is not delivery.request and not self._adapt(choice, delivery):
                return
            if self.wishes.pressure is Pressure.PAUSE:
                self._pause()
                delivery.resume()
                since_ns = now_ns()
            elif source.wait(TURN_S):
                delivery.frame()
                if stalled or delivery.frames == 1:
                    self.report.found(choice, opened, (now_ns() - since_ns) / 1e9)
                since_ns, stalled = now_ns(), False
                self.report.beat("running", self.rings.shortage, delivery)
            elif not self.stop.requested:
                stalled = self._check_stall(delivery, opened, (now_ns() - since_ns) / 1e9, stalled)

    def _adapt(self, choice: Choice, delivery: FramePublisher) -> bool:
        """Ask the camera for what is wished now. Returns: False if it must be opened anew for that."""
        old, new = delivery.request, self.wishes.request
        live = not needs_reopening(old, new) and choice.source.apply(new)
        self.report.asked(new)
        if live:
            delivery.change(new)
        return live

    def _check_stall(self, delivery: FramePublisher, opened: OpenedSource, waited_s: float, stalled: bool) -> bool:
        """Report a frame that is late. Raises: CameraError when it is so late that the camera is opened anew."""
        self.rings.heartbeat()
        period, camera = period_s(delivery.request, opened.framerate), self.wishes.camera
        if waited_s > max(camera.lost_after_s, LOST_PERIODS * period):
            raise CameraError(f"no frame for {waited_s:.1f} s (camera.lost_after_s = {camera.lost_after_s})")
        if waited_s <= max(camera.capture_timeout_s, STALL_PERIODS * period):
            self.report.beat("running" if delivery.frames else "starting", self.rings.shortage, delivery)
            return stalled
        if not stalled:
            log.warning("slow capture: no frame for %.1f s capture_timeout_s=%s", waited_s, camera.capture_timeout_s)
        self.report.beat("stalled", f"no frame for {waited_s:.1f} s")
        return True

    def _pause(self) -> None:
        """Let the machine breathe; the camera stays open, its frames are not taken."""
        self.rings.heartbeat()
        self.report.beat("paused", f"swap above {self.wishes.camera.swap_pause_percent:.0f} %")
        self.stop.wait(TURN_S)

    def _rest(self, state: str, reason: str, seconds: float) -> None:
        """Wait before the next try, obeying all the while; other wishes end it."""
        before, camera = self.wishes.request, self.wishes.camera
        until_ns = now_ns() + round(seconds * 1e9)
        while not self._leaving and now_ns() < until_ns:
            self._hear()
            if self.wishes.request is not before or self.wishes.camera != camera:
                return
            self.rings.heartbeat()
            self.report.beat(state, reason)
            self.stop.wait(min(TURN_S, max(0.0, (until_ns - now_ns()) / 1e9)))

    def _listen(self) -> None:
        """Take what other processes said."""
        for request in self.control.receive():
            if isinstance(request.message, Detect):
                self.detect(request)
            elif isinstance(request.message, Event):
                self.wishes.hear(request.message)

    def _hear(self) -> None:
        """Listen, and look at memory now and then."""
        self._listen()
        if now_ns() - self._memory_checked_ns > CHECK_MEMORY_NS:
            self._memory_checked_ns = now_ns()
            self._check_memory()

    def _check_memory(self) -> None:
        camera, before = self.wishes.camera, self.wishes.pressure
        swap = camera_request.swap_percent()
        now = camera_request.decide(swap, before, camera)
        if now is not before:
            self.wishes.press(now)
            self.report.pressure(before, now, swap, camera)
        used = read_memory()[0] / 1e6
        if camera.memory_limit_mb and used > camera.memory_limit_mb:
            log.error("memory limit reached used=%.0f MB limit=%d MB: ending", used, camera.memory_limit_mb)
            self._exit_code = EXIT_MEMORY
