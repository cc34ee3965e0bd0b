"""Answers the hub's own commands: settings, logs, health, versions. The only part of the hub that touches files."""

from __future__ import annotations

import logging
import operator
import os
import platform
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
import psutil

from shmcam.config.masking import mask_secret
from shmcam.config.settings import SettingsError
from shmcam.config.toml_file import to_toml
from shmcam.control.messages import (
    Cameras,
    Command,
    DumpConfig,
    Event,
    Get,
    Health,
    Logs,
    OverwriteConfig,
    Reply,
    Set,
    Status,
    Version,
    error,
)
from shmcam.hub import status
from shmcam.hub.live_settings import Change, LiveSettings, as_json, as_toml, roles_of, roles_to_restart
from shmcam.hub.registry import Registry
from shmcam.runtime.log_tail import merge_tails
from shmcam.runtime.procfs import read_memory

log = logging.getLogger(__name__)

Answer = tuple[Reply, list[Event]]
"""The reply, and the events that go to the processes with it."""


class OwnCommands:
    """The hub's own commands, answered one after the other; the `slow` ones in the server's worker thread."""

    slow = (Set, OverwriteConfig, Logs)
    """The commands that read or sync files."""

    def __init__(self, live_settings: LiveSettings, registry: Registry) -> None:
        self.live_settings = live_settings
        self._registry = registry
        self._settings_replies: dict[Get | DumpConfig, Reply] = {}
        """The answers of get and dump_config that were given, good while the settings are:"""
        self._replied_for: list[object] = []
        self._handlers: dict[type[Command], Callable[[Any], Answer]] = {
            Status: lambda _: (status.status_reply(registry, time.monotonic()), []),
            Cameras: lambda _: (status.cameras_reply(registry), []),
            Health: lambda _: (self._health(), []),
            Version: lambda _: (_version_reply(), []),
            Get: lambda command: (self._recall(command, lambda: self._get(command.key)), []),
            Set: self._set,
            DumpConfig: lambda command: (self._recall(command, lambda: self._dump(command.format)), []),
            OverwriteConfig: lambda _: (self._overwrite(), []),
            Logs: lambda command: (self._logs(command), []),
        }

    def answer(self, command: Command) -> Answer:
        """Carries out a command; every expected failure becomes a Reply."""
        try:
            return self._handlers[type(command)](command)
        except SettingsError as problem:
            return error(str(problem), "bad_setting"), []
        except OSError as problem:
            return error(f"{problem.filename or 'disk'}: {problem.strerror}; nothing was changed", "disk_error"), []

    def _set(self, command: Set) -> Answer:
        changes = self.live_settings.change(command.changes)
        events: list[Event] = [*self.live_settings.events_of(changes)]
        for change in changes:
            log.info("setting changed key=%s from=%s to=%s", change.path, *map(to_toml, self._old_and_new(change)))
        data: dict[str, Any] = {
            "changes": [self._row_of(change) for change in changes],
            "restart": roles_to_restart(changes),
            "saved": command.save,
        }
        lines = [self._describe_change(change, saved=command.save) for change in changes]
        if command.save:
            try:
                self.live_settings.overwrite(command.changes.keys())
            except (SettingsError, OSError) as problem:
                return error(f"changed, but not saved: {problem}", "not_saved", **{**data, "saved": False}), events
            lines.append(self._describe_saved())
        text = "\n".join(lines)
        return Reply(status="setting_changed", text=text, data={"message": text, **data}), events

    def _row_of(self, change: Change) -> dict[str, Any]:
        old, new = self._old_and_new(change)
        row = {"key": change.path, "old": old, "new": new, "apply": change.key.apply}
        return row | {"not_for": self.live_settings.cameras_with_own_value(change)}

    def _describe_change(self, change: Change, *, saved: bool) -> str:
        old, new = map(to_toml, self._old_and_new(change))
        text = f"OK: changed {change.path} from {old} to {new}"
        own = self.live_settings.cameras_with_own_value(change)
        exception = f"; not for {', '.join(own)}, set cameras.{own[0]}.… for that" if own else ""
        if change.key.apply == "live":
            return f"{text} (live{exception})"
        programs = " ".join(roles_to_restart([change]))
        return f"{text} (needs: {'' if saved else 'overwrite_config, then '}shmcam restart {programs}{exception})"

    def _describe_saved(self) -> str:
        """Returns where the settings were saved, and which earlier ones are still only in memory."""
        rest = ", ".join(sorted(self.live_settings.unsaved))
        text = f"saved to {self.live_settings.base.path}"
        return f"{text}; still unsaved: {rest} (overwrite_config writes them too)" if rest else text

    def _old_and_new(self, change: Change) -> tuple[Any, Any]:
        return mask_secret(change.key, change.old), mask_secret(change.key, change.new)

    def _get(self, prefix: str) -> Reply:
        settings, own = self.live_settings.current, self.live_settings.own_values()
        if prefix == "cameras" or (prefix.startswith("cameras.") and prefix.count(".") == 1):
            self.live_settings.check_camera(prefix)
            keys = {path: settings.key(path) for path in own if path.startswith(f"{prefix}.")}
        else:
            begin = f"{prefix}." * bool(prefix)
            keys = {key.path: key for key in settings.schema() if f"{key.path}.".startswith(begin)}
            keys = keys or {prefix: settings.key(prefix)}  # cameras.cam1.…, or what it refuses with the nearest name
        values = {path: mask_secret(key, settings.value(path)) for path, key in keys.items()}
        lines = [
            f"{path} = {to_toml(values[path])}{f' [{key.unit}]' if key.unit else ''}" for path, key in keys.items()
        ]
        if len(keys) == 1 and prefix in keys:
            key = keys[prefix]
            lines.append(f"{key.help}; {key.expected}; default {to_toml(key.default)}; {key.apply}")
        waiting = {
            path: {"changed_utc_s": changed_utc_s, "roles": roles_of([settings.key(path)])}
            for path, changed_utc_s in self.live_settings.restart_keys.items()
        }
        data = {
            "settings": values,
            "own": {path: mask_secret(settings.key(path), value) for path, value in own.items()},
            "unsaved": sorted(self.live_settings.unsaved),
            "waiting": waiting,
        }
        return Reply(status="settings", text="\n".join(lines) or "no camera has a value of its own", data=data)

    def _dump(self, form: str) -> Reply:
        config = as_json(self.live_settings)
        text = (
            as_toml(self.live_settings).rstrip()
            if form == "toml"
            else msgspec.json.format(msgspec.json.encode(config, order="sorted"), indent=4).decode()
        )
        return Reply(status="config", text=text, data={"config": config})

    def _recall(self, command: Get | DumpConfig, make: Callable[[], Reply]) -> Reply:
        """Returns the answer given before, or makes it; each change of the settings makes new objects of them."""
        live = self.live_settings
        settings = [live.base, live.current, live.unsaved, live.restart_keys]
        if not self._replied_for or any(map(operator.is_not, settings, self._replied_for)):
            self._settings_replies, self._replied_for = {}, settings
        if command not in self._settings_replies:
            self._settings_replies[command] = make()
        return self._settings_replies[command]

    def _overwrite(self) -> Reply:
        path = self.live_settings.base.path
        count = self.live_settings.overwrite()
        text = (
            f"OK: {count} changed settings written to {path}"
            if count
            else f"OK: nothing to write; {path} is up to date"
        )
        return Reply(status="config_written", text=text, data={"path": str(path), "count": count})

    def _health(self) -> Reply:
        swap, available = psutil.swap_memory(), psutil.virtual_memory().available
        rss_bytes, swap_bytes = read_memory()
        hub = {
            "program": "hub",
            "state": "running",
            "pid": os.getpid(),
            "rss_bytes": rss_bytes,
            "swap_bytes": swap_bytes,
        }
        machine = {"swap_percent": swap.percent, "available_bytes": available, "load": os.getloadavg()[0]}
        return status.health_reply(self._registry, time.monotonic(), hub, machine)

    def _logs(self, command: Logs) -> Reply:
        lines = merge_tails(self.live_settings.current.paths.logs, command.process, command.lines)
        if lines is None:
            programs = sorted(path.stem for path in self.live_settings.current.paths.logs.glob("*.log"))
            return error(
                f"no log of {command.process!r}; there are: {', '.join(programs) or 'none'}", "unknown_process"
            )
        return Reply(status="logs", text="\n".join(lines), data={"lines": lines})


@cache
def _version_reply() -> Reply:
    """Returns the versions that this process has started with; a search through all packages takes 20 ms."""
    names = ("shmcam", "numpy", "opencv-python-headless", "av", "aiohttp", "msgpack", "supervisor", "picamera2")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    system = {"python": platform.python_version(), "kernel": platform.release()}
    versions = {"shmcam": versions.pop("shmcam"), **system, **versions}
    text = " ".join(f"{name}={value}" for name, value in versions.items())
    return Reply(status="version", text=text, data=versions)
