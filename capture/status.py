"""The messages of capture: heartbeat, camera found and lost, mode changed. Each thing is said once."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from capture.desired_request import Pressure, find_changes
from capture.publisher import FramePublisher
from capture.settings import CameraSettings
from capture.sources.base import CameraRequest, OpenedSource
from capture.sources.select import Choice
from shmcam.control.client import ControlClient
from shmcam.control.messages import CameraFound, CameraLost, MemoryHigh, ModeChanged
from shmcam.runtime.clock import now_ns

BEAT_NS = 500_000_000
"""The client sends one heartbeat a second; more often than this is only work."""

OPENING_NS = 12_000_000_000
"""A network camera may take 8 s to its first picture (capture.sources.pyav_stream.OPEN_S)."""

log = logging.getLogger(__name__)


class CaptureStatus:
    """Turns what happens in the loop into log lines, events and heartbeats."""

    def __init__(self, control: ControlClient, camera: str) -> None:
        self._control, self._camera = control, camera
        self._state, self._reason = "starting", ""
        self._beat_ns = 0
        self._trouble = ""
        self._asked: CameraRequest | None = None
        self._frames = self._dropped = 0
        self._figures: dict[str, Any] = {}

    @property
    def is_in_trouble(self) -> bool:
        """True while the camera is away, so that messages about opening it again are repetitions."""
        return bool(self._trouble)

    def beat(self, state: str, reason: str = "", publisher: FramePublisher | None = None) -> None:
        """Sends a heartbeat when one is due; call it on every pass of the loop."""
        if not self.is_due(state):
            return
        self._state, self._reason, self._beat_ns = state, reason, now_ns()
        if publisher is not None:
            self._figures = self._figures_of(publisher)
        fps = round(publisher.rate.per_s, 2) if publisher is not None else 0.0
        self._control.beat(state=state, reason=reason[:300], fps=fps, **self._figures)

    def is_due(self, state: str) -> bool:
        """Tells whether a heartbeat is due, so that nothing is gathered for one that is not."""
        return state != self._state or now_ns() - self._beat_ns >= BEAT_NS

    @contextmanager
    def beat_while_opening(self, reason: str = "", ring_heartbeat: Callable[[], None] | None = None) -> Iterator[None]:
        """Keeps the heartbeats going while a camera is opened or a ring is made, for OPENING_S at most.

        `reason`: what is waited for. `ring_heartbeat`: that of the rings, where they stay as they are meanwhile.

        Both may take seconds; a call that takes longer hangs, and silence is how the watchdog learns of it.
        """
        done = threading.Event()
        reason = reason or (self._trouble and self._reason) or "opening the camera"
        thread = threading.Thread(
            target=self._beat_until, args=(done, reason, ring_heartbeat), name="opening", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _beat_until(self, done: threading.Event, reason: str, ring_heartbeat: Callable[[], None] | None) -> None:
        state = self._state if self._trouble else "starting"
        deadline_ns = now_ns() + OPENING_NS
        while not done.wait(BEAT_NS / 1e9) and now_ns() < deadline_ns:
            self.beat(state, reason)
            if ring_heartbeat is not None:
                ring_heartbeat()

    def log_opened(self, choice: Choice, opened: OpenedSource, request: CameraRequest) -> None:
        """Logs what was opened and why; at DEBUG while it keeps failing."""
        self.report_request(request)
        level, shape = (logging.DEBUG if self._trouble else logging.INFO), opened.geometry
        log.log(level, "opened %s: %s", choice.source.description, choice.reason)
        log.log(level, "frames %dx%d %s rate=%.3f", shape.width, shape.height, shape.pixel_format, opened.framerate)
        log.log(level, "asked for %s", request)
        for control, why in opened.refused.items():
            log.warning("control refused %s: %s", control, why)

    def report_found(self, choice: Choice, opened: OpenedSource, waited_s: float) -> None:
        """Says that frames come (again)."""
        name, shape = choice.source.description, opened.geometry
        log.info("ready %s first frame after %.2f s", name, waited_s)
        self._trouble = ""
        mode = {"width": shape.width, "height": shape.height, "rate": opened.framerate, "format": shape.pixel_format}
        model = name.removeprefix(f"{choice.kind} ")[:100]
        found = CameraFound(
            camera=self._camera, source=choice.kind, model=model, modes=[mode], reason=choice.reason[:300]
        )
        self._control.announce(found)

    def report_trouble(
        self, state: str, reason: str, fault: BaseException | None = None, *, is_lost: bool = True
    ) -> None:
        """Reports trouble when it is new; the same with other numbers is not. A `fault` brings its traceback.

        `is_lost`: False where another process has the camera's ring, and its frames come.
        """
        kind = re.sub(r"[0-9.]+", "#", reason)
        if kind != self._trouble:
            log.warning("%s: %s", state, reason, exc_info=fault)
            if is_lost:
                self._control.announce(CameraLost(camera=self._camera, reason=reason[:300]))
        self._trouble = kind

    def report_request(self, new: CameraRequest) -> None:
        """Logs each field that is asked of the camera differently, old → new; announces another mode.

        Also what was asked while the camera was away. At night the exposure follows the light: that is no other mode.
        """
        old, self._asked = self._asked or new, new
        found = find_changes(old, new)
        for name, (before, after) in found.items():
            log.info("changed %s %s → %s", name, before, after)
        if "mode" in found:
            pairs: dict[str, Any] = {name: [_plain(before), _plain(after)] for name, (before, after) in found.items()}
            self._control.announce(ModeChanged(camera=self._camera, old=old.mode, new=new.mode, changes=pairs))

    def report_pressure(self, before: Pressure, now: Pressure, swap_percent: float, camera: CameraSettings) -> None:
        """Announces that memory runs short, or that it does no longer."""
        log.warning("swap pressure %s → %s swap=%.0f %%", before.value, now.value, swap_percent)
        limit = camera.swap_pause_percent if now is Pressure.PAUSE else camera.swap_slow_percent
        action = "resume" if now is Pressure.NONE else now.value
        self._control.announce(MemoryHigh(action=action, used=swap_percent, limit=limit))

    def add_counts(self, publisher: FramePublisher) -> None:
        """Adds one opening's counts to the totals."""
        self._figures = self._figures_of(publisher)
        self._frames += publisher.frames
        self._dropped += publisher.drops.total

    def log_totals(self) -> None:
        """Writes the last line of the log."""
        log.info("stopped frames=%d drops=%d", self._frames, self._dropped)

    def _figures_of(self, publisher: FramePublisher) -> dict[str, Any]:
        shot = publisher.shot
        return {
            "source": publisher.description,
            "mode": publisher.request.mode,
            "frames": self._frames + publisher.frames,
            "dropped": self._dropped + publisher.drops.total,
            "exposure_us": shot.exposure_us,
            "gain": round(shot.analogue_gain, 3),
        }


def _plain(value: object) -> Any:
    """Returns the value as a message can carry it."""
    return value if isinstance(value, bool | int | float | str | type(None)) else str(value)
