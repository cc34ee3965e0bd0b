"""What the analyzer's loop works with, and how it tells what happened: messages, log lines, hooks."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import msgspec

from analyzer import answers
from analyzer.daybook import Daybook
from analyzer.hooks import Hooks
from analyzer.judge import Request
from analyzer.night import Decision
from analyzer.plugins import Plugins
from analyzer.record import Scorer
from analyzer.settings import AnalyzerSettings, MotionSettings, NightSettings
from analyzer.watcher import Seen, Watcher
from control.client import ControlClient
from control.messages import Saved
from library import Catalogue, LibraryError
from library.sidecar import read
from service.settings import Settings

log = logging.getLogger(__name__)


@dataclass
class Parts:
    """What the loop works with; `__main__` opens and closes them."""

    camera: str
    settings: Settings
    watcher: Watcher
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


def watcher_for(settings: Settings, camera: str) -> Watcher:
    """The analyzer's mind, with this camera's settings."""
    return Watcher(*rules_of(settings, camera))


def tell(seen: Seen, parts: Parts) -> None:
    """Announce, log and remember what one frame brought."""
    camera, control = parts.camera, parts.control
    if seen.decision:
        tell_night(seen.decision, seen, parts)
    if seen.request:
        ask(seen.request, parts)
    if seen.movement:
        event = answers.motion_event(seen.movement, camera, seen)
        control.announce(event)
        word = "began" if seen.movement.began else "ended"
        log.info("motion %s score=%.4f zone=%s frame_id=%d", word, event.score, event.zone or "-", event.frame_id)
    tell_saved(parts.daybook.note(seen, parts.watcher.night), parts)


def tell_saved(paths: list[Path], parts: Parts) -> None:
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


def tell_night(decision: Decision, seen: Seen, parts: Parts) -> None:
    """Announce and log that night began or ended, and run the user's command."""
    parts.control.announce(answers.night_event(decision, parts.camera, seen))
    word = "began" if decision.night else "ended"
    verdict = seen.verdict
    log.info(
        "night %s %s low=%.1f high=%.1f ev=%.2f source=%s dark_score=%.1f frame_id=%d",
        word, decision.reason, verdict.low, verdict.high, verdict.ev, verdict.source.name.lower(),
        seen.measured.dark_score[0], seen.look.meta.frame_id,
    )  # fmt: skip
    rules = parts.watcher.night_rules
    parts.hooks.run(rules.on_night if decision.night else rules.on_day, word, decision.reason, rules.hook_timeout_s)


def ask(request: Request, parts: Parts) -> None:
    """Ask capture for another mode or exposure."""
    parts.control.announce(answers.mode_request(request, parts.camera))
    exposure = request.exposure
    log.info(
        "asked for mode=%s exposure_us=%d gain=%.2f %s",
        request.mode,
        exposure.exposure_us,
        exposure.gain,
        request.reason,
    )
