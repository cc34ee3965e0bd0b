"""What the analyzer does all day: look at the newest frame, publish its record, tell what happened, obey.

Obeys commands and settings between two frames.

What the analyzer's loop works with, and how it tells what happened: messages, log lines, hooks.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec

from analyzer import replies
from analyzer.frame_analyzer import FrameAnalyzer, FrameResult
from analyzer.hooks import Hooks
from analyzer.keogram.keeper import Daybook
from analyzer.night.controller import ExposureRequest
from analyzer.night.decision import Decision, Override
from analyzer.pixels import look_at
from analyzer.plugins.host import Plugins
from analyzer.scores_writer import Scorer
from analyzer.settings import AnalyzerSettings, MotionSettings, NightSettings
from shm_ring import FrameOverwritten, LiveRing, RingError, RingReader
from shmcam.config.settings import Settings, apply_change
from shmcam.control.client import ControlClient, Request
from shmcam.control.messages import Keogram, Night, NightLevel, Saved, SettingChanged, error
from shmcam.library import Catalogue, LibraryError
from shmcam.library.sidecar import read
from shmcam.runtime.clock import RateMeter, now_ns
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Timer

log = logging.getLogger(__name__)


@dataclass
class Analyzer:
    """What the loop works with; `__main__` opens and closes them."""

    camera: str
    settings: Settings
    watcher: FrameAnalyzer
    scorer: Scorer
    control: ControlClient
    plugins: Plugins
    daybook: Daybook
    hooks: Hooks


def rules_of(settings: Settings, camera: str) -> tuple[NightSettings, AnalyzerSettings, MotionSettings]:
    """Read a camera's tables; the scale of the thresholds follows its frame rate. Raises: SettingsError."""
    night = settings.table(NightSettings, camera)
    framerate = settings.value(f"cameras.{camera}.framerate")
    if not night.reference_exposure_us and framerate:
        night = msgspec.structs.replace(night, reference_exposure_us=round(1e6 / framerate))
    return night, settings.table(AnalyzerSettings, camera), settings.table(MotionSettings, camera)


def watcher_for(settings: Settings, camera: str) -> FrameAnalyzer:
    """The analyzer's mind, with this camera's settings."""
    return FrameAnalyzer(*rules_of(settings, camera))


def tell(seen: FrameResult, parts: Analyzer) -> None:
    """Announce, log and remember what one frame brought."""
    camera, control = parts.camera, parts.control
    if seen.decision:
        tell_night(seen.decision, seen, parts)
    if seen.request:
        ask(seen.request, parts)
    if seen.movement:
        event = replies.motion_event(seen.movement, camera, seen)
        control.announce(event)
        word = "began" if seen.movement.began else "ended"
        log.info("motion %s score=%.4f zone=%s frame_id=%d", word, event.score, event.zone or "-", event.frame_id)
    tell_saved(parts.daybook.note(seen, parts.watcher.night), parts)


def tell_saved(paths: list[Path], parts: Analyzer) -> None:
    """Announce files that are safely on disk, and enter the pictures into the library."""
    for path in paths:
        parts.control.announce(Saved(camera=parts.camera, path=str(path), kind="keogram"))
    pictures = [path for path in paths if path.suffix == ".png"]
    if not pictures:
        return
    try:
        with Catalogue.of(parts.settings) as catalogue:
            for path in pictures:
                catalogue.add(read(path))
    except (OSError, sqlite3.Error, LibraryError) as problem:  # it finds them by itself at its next look at the disk
        log.warning("keogram not entered into the library: %s", problem)


def tell_night(decision: Decision, seen: FrameResult, parts: Analyzer) -> None:
    """Announce and log that night began or ended, and run the user's command."""
    parts.control.announce(replies.night_event(decision, parts.camera, seen))
    word = "began" if decision.night else "ended"
    verdict = seen.verdict
    log.info(
        "night %s %s low=%.1f high=%.1f ev=%.2f source=%s dark_score=%.1f frame_id=%d",
        word, decision.reason, verdict.low, verdict.high, verdict.ev, verdict.source.name.lower(),
        seen.measured.dark_score[0], seen.look.meta.frame_id,
    )  # fmt: skip
    rules = parts.watcher.night_rules
    parts.hooks.run(rules.on_night if decision.night else rules.on_day, word, decision.reason, rules.hook_timeout_s)


def ask(request: ExposureRequest, parts: Analyzer) -> None:
    """Ask capture for another mode or exposure."""
    parts.control.announce(replies.mode_request(request, parts.camera))
    exposure = request.exposure
    log.info(
        "asked for mode=%s exposure_us=%d gain=%.2f %s",
        request.mode,
        exposure.exposure_us,
        exposure.gain,
        request.reason,
    )


COMMANDS = ("night_level", "night", "keogram")


def obey(parts: Analyzer) -> None:
    """Answer what was asked since the last frame, and take changed settings over."""
    for request in parts.control.receive():
        match request.message:
            case NightLevel():
                request.reply(replies.night_level(parts.watcher, parts.camera, now_ns()))
            case Night(action=action):
                _night(action, request, parts)
            case Keogram():
                _keogram(request, parts)
            case SettingChanged() as changed:
                _change(changed, parts)


def _night(action: str, request: Request, parts: Analyzer) -> None:
    watcher = parts.watcher
    for override in (one for one in _OVERRIDES if one == action):  # `status` changes nothing
        decision, exposure = watcher.force(override)
        log.info("night forced action=%s", action)
        if decision and watcher.last:
            tell_night(decision, watcher.last, parts)
        if exposure:
            ask(exposure, parts)
    request.reply(replies.night_status(watcher, parts.camera))


def _keogram(request: Request, parts: Analyzer) -> None:
    try:
        paths = parts.daybook.draw()
    except OSError as problem:
        request.reply(error(f"keogram not written: {problem}", "not_saved"))
        return
    request.reply(replies.keogram(paths, parts.camera, parts.daybook.columns))


def _change(changed: SettingChanged, parts: Analyzer) -> None:
    """Adopt one live setting; what does not fit leaves everything as it was."""
    if changed.camera in ("", parts.camera):
        parts.settings = apply_change(parts.settings, changed.key, changed.new, changed.camera)
        parts.watcher.adopt(*rules_of(parts.settings, parts.camera))


_OVERRIDES: tuple[Override, ...] = get_args(Override)


BEAT_S = 0.25
"""Heartbeats leave once a second; offering one more often than this is wasted work at 120 fps."""
IDLE_S = 0.1
"""Between long night frames commands are answered this late at most."""


def watch(ring: LiveRing, parts: Analyzer, stop: Stop) -> None:
    """Until stop is requested. Frames that came in between while one was looked at are skipped and counted."""
    frames, rate, beats = 0, FrameRate(), Timer()
    for found in ring.sequences(newest_first=True, idle_s=IDLE_S):
        obey(parts)
        parts.plugins.tend()
        lag = 0
        if found is None:
            tell_saved(parts.daybook.tend(time.time_ns()), parts)
        else:
            reader, sequence = found
            seen = take(reader, sequence, parts)
            if seen is None:
                continue
            frames += 1
            rate.add(now_ns(), seen.look.meta.exposure_us)
            tell(seen, parts)
            lag = max(0, reader.head - 1 - sequence)
        if beats.due(now_ns(), BEAT_S):
            beat(ring, parts, rate, lag)
    log.info("stopped frames=%d skipped=%d night=%s", frames, ring.skipped, parts.watcher.night)


def beat(ring: LiveRing, parts: Analyzer, rate: FrameRate, lag: int) -> None:
    """Say that the loop turns."""
    now = now_ns()
    silent = rate.is_silent(now)
    parts.control.beat(
        "waiting" if silent else "running",
        "no frames" if silent else "",
        fps=rate.per_s(now),
        lag=lag,
        laps=ring.laps,
        skipped=ring.skipped,
        plugins=parts.plugins.states(),
        hooks=parts.hooks.state,
        **replies.figures(parts.watcher),
    )


def take(reader: RingReader, sequence: int, parts: Analyzer) -> FrameResult | None:
    """Look at one frame and publish its record; None where it was overwritten meanwhile, or is no picture."""
    try:
        with reader.borrow(sequence) as frame:
            look = look_at(frame, parts.daybook.column_due(frame.captured_ns))
    except FrameOverwritten:
        return None
    except (RingError, ValueError) as problem:  # a payload that is not what its header says
        log.warning("frame not understood sequence=%d: %s", sequence, problem)
        return None
    seen = parts.watcher.observe(look)
    parts.scorer.publish(seen, parts.watcher, parts.plugins.results)
    return seen


SILENCE_S = 5.0
"""No frame for so long (and three exposures) is worth telling."""
RATE_WINDOW_S = 1.0
"""The frame rate is measured over so long (and three exposures)."""
RATE_INTERVALS = 240
"""One second of the fastest cameras."""


class FrameRate:
    """The rate and the absence of frames, by the times at which they came."""

    def __init__(self) -> None:
        self._rate = RateMeter(RATE_INTERVALS, window_s=RATE_WINDOW_S)

    def add(self, at_ns: int, exposure_us: int) -> None:
        """Count a frame; its exposure explains a longer wait for the next ones."""
        self._rate.window_s = max(RATE_WINDOW_S, 3e-6 * exposure_us)
        self._rate.add(at_ns)

    def per_s(self, now_ns: int) -> float:
        """Frames a second; 0 once none has come for longer than the rate is measured over."""
        window_s = max(self._rate.window_s, 2e-9 * self._rate.period_ns)
        return 0.0 if self._quiet_s(now_ns) > window_s else self._rate.per_s

    def is_silent(self, now_ns: int) -> bool:
        """Whether no frame has come for longer than the last one's exposure explains."""
        return self._quiet_s(now_ns) > max(SILENCE_S, self._rate.window_s)

    def _quiet_s(self, now_ns: int) -> float:
        newest_ns = self._rate.newest_ns
        return math.inf if newest_ns is None else (now_ns - newest_ns) / 1e9
