"""Obeys commands and settings between two frames."""

from __future__ import annotations

import logging
from typing import get_args

from analyzer import answers
from analyzer.night import Override
from analyzer.parts import Parts, ask, rules_of, tell_night
from control.client import Request as Asked
from control.messages import Keogram, Night, NightLevel, SettingChanged, error
from service.clock import now_ns
from service.settings import SettingsError

log = logging.getLogger(__name__)

OWNERS = ("night", "analyzer", "motion", "camera", "cameras")
"""Tables whose keys matter here; [camera] for its frame rate."""

COMMANDS = ("night_level", "night", "keogram")


def obey(parts: Parts) -> None:
    """Answer what was asked since the last frame, and take changed settings over."""
    for asked in parts.control.received():
        match asked.message:
            case NightLevel():
                asked.reply(answers.night_level(parts.watcher, parts.camera, now_ns()))
            case Night(action=action):
                _night(action, asked, parts)
            case Keogram():
                _keogram(asked, parts)
            case SettingChanged() as changed:
                _change(changed, parts)


def _night(action: str, asked: Asked, parts: Parts) -> None:
    watcher = parts.watcher
    for override in (one for one in _OVERRIDES if one == action):  # `status` changes nothing
        decision, request = watcher.force(override)
        log.info("night forced action=%s", action)
        if decision and watcher.last:
            tell_night(decision, watcher.last, parts)
        if request:
            ask(request, parts)
    asked.reply(answers.night_status(watcher, parts.camera))


def _keogram(asked: Asked, parts: Parts) -> None:
    try:
        paths = parts.daybook.draw()
    except OSError as problem:
        asked.reply(error(f"keogram not written: {problem}", "not_saved"))
        return
    asked.reply(answers.keogram(paths, parts.camera, parts.daybook.columns))


def _change(changed: SettingChanged, parts: Parts) -> None:
    """Adopt one live setting; what does not fit leaves everything as it was."""
    owner = changed.key.split(".")[0]
    if changed.camera not in ("", parts.camera) or owner not in OWNERS:
        return
    key = f"cameras.{changed.camera}.{changed.key}" if changed.camera and owner != "cameras" else changed.key
    try:
        settings = parts.settings.with_value(key, changed.new)
        rules = rules_of(settings, parts.camera)
    except SettingsError as problem:
        log.warning("setting refused key=%s: %s", key, problem)
        return
    parts.settings = settings
    parts.watcher.adopt(*rules)
    log.info("setting taken over key=%s value=%s", key, changed.new)


_OVERRIDES: tuple[Override, ...] = get_args(Override)
