"""What capture does all day: open the camera, publish its frames, obey, and never give up on a camera that is away."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from capture import pressure
from capture.choose import Choice
from capture.delivery import Delivery
from capture.modes import changes, needs_reopening, period_s
from capture.rings import Rings
from capture.settings import CameraSettings
from capture.source import CameraError, EndOfStream, FrameSource, Opened, Request
from capture.wishes import Wishes
from control.client import ControlClient
from control.messages import CameraFound, CameraLost, Detect, Event, MemoryHigh, ModeChanged
from service.clock import now_ns
from service.retry import Backoff
from service.stop import Stop
from shm_ring import RingBusy, RingTooLarge

TURN_S = 0.25
"""The longest the loop waits for a frame before it looks at messages; frames end the wait at once."""

RETRY_LIMIT_S = 4.0
"""A camera is back within 5 s of its return; asking every 4 s costs nothing."""

CHECK_MEMORY_NS = 5_000_000_000
STALL_PERIODS, LOST_PERIODS = 3, 5
TROUBLE: dict[type[Exception], str] = {RingBusy: "ring busy", RingTooLarge: "no memory"}
"""States of the heartbeat by what went wrong; anything else means no camera."""

log = logging.getLogger(__name__)


@dataclass
class Loop:
    """One camera's process. `choose` makes the source that the settings ask for, with the reason."""

    name: str
    wishes: Wishes
    rings: Rings
    control: ControlClient
    stop: Stop
    choose: Callable[[CameraSettings], Choice]
    detect: Callable[[Any], None]
    """Answers a `detect` request, from a thread of its own."""
    frames: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    _exit_code: int | None = field(default=None, init=False)
    _memory_checked_ns: int = field(default=0, init=False)
    _state: tuple[str, str] = field(default=("starting", ""), init=False)
    _figures: dict[str, Any] = field(default_factory=dict, init=False)
    _lost: str = field(default="", init=False)

    def run(self) -> int:
        """Until asked to stop, or until memory runs out. Returns: the exit code."""
        backoff = Backoff(limit_s=RETRY_LIMIT_S)
        while not self._leaving:
            frames = self.frames
            try:
                self._serve()
            except EndOfStream as ended:
                self._rest("ended", str(ended), None)
                continue
            except (CameraError, RingBusy, RingTooLarge) as error:
                if self.frames > frames:
                    backoff.reset()
                state = TROUBLE.get(type(error), "no camera")
                self._lose(state, str(error))
                self._rest(state, str(error), backoff.delay_s())
        log.info("stopped frames=%d drops=%d", self.frames, self.dropped)
        if self._exit_code is not None:
            self.rings.leave()  # the next process goes on where this one stopped
        return self._exit_code or 0

    @property
    def _leaving(self) -> bool:
        return self.stop.requested or self._exit_code is not None

    def _serve(self) -> None:
        """Open the camera and deliver until it must be opened anew."""
        choice = self.choose(self.wishes.camera)
        source, request = choice.source, self.wishes.request
        with closing(source):
            opened = source.open(request, self.stop)
            level, shape = (logging.DEBUG if self._lost else logging.INFO), opened.geometry  # trouble repeats itself
            log.log(level, "opened %s: %s", source.description, choice.reason)
            log.log(level, "frames %dx%d %s rate=%.3f", shape.width, shape.height, shape.pixel_format, opened.framerate)
            log.log(level, "asked for %s", request)
            for control, why in opened.refused.items():
                log.warning("control refused %s: %s", control, why)
            delivery = Delivery(source, opened, request, self.wishes, self.rings)
            try:
                self._deliver(choice, opened, delivery, request)
            finally:
                self.dropped += delivery.drops.total

    def _deliver(self, choice: Choice, opened: Opened, delivery: Delivery, request: Request) -> None:
        source, waiting_since_ns, stalled = choice.source, now_ns(), False
        while not self._leaving:
            self._hear()
            wanted = self.wishes.request
            if wanted != request:
                if needs_reopening(request, wanted) or not source.apply(wanted):
                    self._say_changes(request, wanted)
                    return
                self._say_changes(request, wanted)
                delivery.changed(wanted)
                request = wanted
            if self.wishes.pressure is pressure.Pressure.PAUSE:
                self._pause()
                delivery.changed(request)
                waiting_since_ns = now_ns()
                continue
            if source.wait(TURN_S):
                delivery.frame()
                waited_s, waiting_since_ns = (now_ns() - waiting_since_ns) / 1e9, now_ns()
                self.frames += 1
                if stalled or delivery.frames == 1:
                    self._found(choice, opened, waited_s)
                stalled = False
                self._state = "running", ""
                self._note(delivery, source, request)
            elif not self.stop.requested:
                stalled = self._check_stall(request, opened, (now_ns() - waiting_since_ns) / 1e9, stalled)
            self._beat(delivery.fps)

    def _check_stall(self, request: Request, opened: Opened, waited_s: float, stalled: bool) -> bool:
        """Report a frame that is late. Raises: CameraError when it is so late that the camera is opened anew."""
        self.rings.heartbeat()
        period, camera = period_s(request, opened.framerate), self.wishes.camera
        if waited_s > max(camera.lost_after_s, LOST_PERIODS * period):
            raise CameraError(f"no frame for {waited_s:.1f} s (camera.lost_after_s = {camera.lost_after_s})")
        if waited_s <= max(camera.capture_timeout_s, STALL_PERIODS * period):
            return stalled
        if not stalled:
            log.warning("slow capture: no frame for %.1f s capture_timeout_s=%s", waited_s, camera.capture_timeout_s)
        self._state = "stalled", f"no frame for {waited_s:.1f} s"
        return True

    def _pause(self) -> None:
        """Let the machine breathe; the camera stays open, its frames are not taken."""
        self._state = "paused", f"swap above {self.wishes.camera.swap_pause_percent:.0f} %"
        self.rings.heartbeat()
        self._beat(0.0)
        self.stop.wait(TURN_S)

    def _found(self, choice: Choice, opened: Opened, waited_s: float) -> None:
        name, shape = choice.source.description, opened.geometry
        log.info("ready %s first frame after %.2f s", name, waited_s)
        self._lost = ""
        mode = {"width": shape.width, "height": shape.height, "rate": opened.framerate, "format": shape.pixel_format}
        self.control.announce(
            CameraFound(
                camera=self.name, source=choice.kind, model=name[:100], modes=[mode], reason=choice.reason[:300]
            )
        )

    def _lose(self, state: str, reason: str) -> None:
        """Report trouble when it is new; a repetition (the same but for its numbers) is not."""
        kind = re.sub(r"[0-9.]+", "#", reason)
        if kind != self._lost:
            log.warning("%s: %s", state, reason)
            self.control.announce(CameraLost(camera=self.name, reason=reason[:300]))
        self._lost = kind

    def _rest(self, state: str, reason: str, seconds: float | None) -> None:
        """Wait before the next try (None: until something is asked for), obeying all the while."""
        self._state, asked = (state, reason[:300]), self.wishes.request
        camera = self.wishes.camera
        until_ns = now_ns() + round((seconds if seconds is not None else 1e9) * 1e9)
        while not self._leaving and now_ns() < until_ns:
            self._hear()
            if (self.wishes.request, self.wishes.camera) != (asked, camera):
                return
            self.rings.heartbeat()
            self._beat(0.0)
            self.stop.wait(min(TURN_S, max(0.0, (until_ns - now_ns()) / 1e9)))

    def _hear(self) -> None:
        """Take what other processes said, and look at memory now and then."""
        for request in self.control.received():
            if isinstance(request.message, Detect):
                self.detect(request)
            elif isinstance(request.message, Event):
                self.wishes.hear(request.message)
        if now_ns() - self._memory_checked_ns > CHECK_MEMORY_NS:
            self._memory_checked_ns = now_ns()
            self._check_memory()

    def _check_memory(self) -> None:
        camera, before = self.wishes.camera, self.wishes.pressure
        swap = pressure.swap_percent()
        now = self.wishes.pressure = pressure.decide(swap, before, camera)
        if now is not before:
            log.warning("swap pressure %s → %s swap=%.0f %%", before.value, now.value, swap)
            limit = camera.swap_pause_percent if now is pressure.Pressure.PAUSE else camera.swap_slow_percent
            action = {"none": "resume"}.get(now.value, now.value)
            self.control.announce(MemoryHigh(action=action, used=swap, limit=limit))
        used = pressure.own_megabytes()
        if camera.memory_limit_mb and used > camera.memory_limit_mb:
            log.error(
                "memory limit reached used=%.0f MB limit=%d MB: ending for a restart", used, camera.memory_limit_mb
            )
            self._exit_code = pressure.EXIT_MEMORY

    def _say_changes(self, old: Request, new: Request) -> None:
        found = changes(old, new)
        for name, (before, after) in found.items():
            log.info("changed %s %s → %s", name, before, after)
        if {"mode", "exposure_us", "gain"} & found.keys():
            pairs = {name: [_plain(before), _plain(after)] for name, (before, after) in found.items()}
            self.control.announce(ModeChanged(camera=self.name, old=old.mode, new=new.mode, changes=pairs))

    def _note(self, delivery: Delivery, source: FrameSource, request: Request) -> None:
        shot = delivery.shot
        self._figures = {
            "source": source.description,
            "mode": request.mode,
            "frames": self.frames,
            "dropped": self.dropped + delivery.drops.total,
            "exposure_us": shot.exposure_us,
            "gain": round(shot.analogue_gain, 3),
        }

    def _beat(self, fps: float) -> None:
        state, reason = self._state
        self.control.beat(state=state, reason=reason, fps=round(fps, 2), **self._figures)


def _plain(value: object) -> Any:
    """The value as a message can carry it."""
    return value if isinstance(value, bool | int | float | str | type(None)) else str(value)
