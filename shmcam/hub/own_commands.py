"""What the hub itself answers: settings, logs, health, versions. The only part of the hub that touches files."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from shmcam.config.document import to_toml
from shmcam.config.settings import SettingsError
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
from shmcam.hub.live_settings import Change, Configuration, as_json, as_toml, restart_for
from shmcam.hub.registry import Registry
from shmcam.runtime.log_tail import merge_tails
from shmcam.runtime.procfs import read_memory

log = logging.getLogger(__name__)

Answer = tuple[Reply, list[Event]]
"""The reply, and what to tell the processes before it."""


class OwnCommands:
    """Answers commands one after the other; `slow` ones in the server's worker thread."""

    slow = (Set, OverwriteConfig, DumpConfig, Logs)
    """These read or sync files."""

    def __init__(self, configuration: Configuration, roster: Registry) -> None:
        self.configuration = configuration
        self._roster = roster
        self._answers: dict[type[Command], Callable[[Any], Answer]] = {
            Status: lambda _: (status.status(roster, time.monotonic()), []),
            Cameras: lambda _: (status.cameras(roster), []),
            Health: lambda _: (self._health(), []),
            Version: lambda _: (_versions(), []),
            Get: lambda command: (self._get(command.key), []),
            Set: self._set,
            DumpConfig: lambda command: (self._dump(command), []),
            OverwriteConfig: lambda _: (self._overwrite(), []),
            Logs: lambda command: (self._logs(command), []),
        }

    def answer(self, command: Command) -> Answer:
        """Carry out a command; every expected failure becomes a Reply."""
        try:
            return self._answers[type(command)](command)
        except SettingsError as problem:
            return error(str(problem), "bad_setting"), []
        except OSError as problem:
            return error(f"{problem.filename or 'disk'}: {problem.strerror}; nothing was changed", "disk_error"), []

    def _set(self, command: Set) -> Answer:
        changes = self.configuration.change(command.changes)
        events: list[Event] = [*self.configuration.events(changes)]
        for change in changes:
            log.info("setting changed key=%s from=%s to=%s", change.path, *map(to_toml, self._shown(change)))
        data: dict[str, Any] = {
            "changes": [self._row(change) for change in changes],
            "restart": restart_for(changes),
            "saved": command.save,
        }
        lines = [self._changed(change, saved=command.save) for change in changes]
        if command.save:
            try:
                self.configuration.overwrite(command.changes.keys())
            except (SettingsError, OSError) as problem:
                return error(f"changed, but not saved: {problem}", "not_saved", **{**data, "saved": False}), events
            lines.append(self._saved())
        text = "\n".join(lines)
        return Reply(status="setting_changed", text=text, data={"message": text, **data}), events

    def _row(self, change: Change) -> dict[str, Any]:
        old, new = self._shown(change)
        row = {"key": change.path, "old": old, "new": new, "apply": change.key.apply}
        return row | {"not_for": self.configuration.overriding(change)}

    def _changed(self, change: Change, *, saved: bool) -> str:
        old, new = map(to_toml, self._shown(change))
        said = f"OK: changed {change.path} from {old} to {new}"
        own = self.configuration.overriding(change)
        but = f"; not for {', '.join(own)}, set cameras.{own[0]}.… for that" if own else ""
        if change.key.apply == "live":
            return f"{said} (live{but})"
        programs = " ".join(restart_for([change]))
        return f"{said} (needs: {'' if saved else 'overwrite_config, then '}supervisorctl restart {programs}{but})"

    def _saved(self) -> str:
        """Tell what was written, and what was set before and is still only in memory."""
        rest = ", ".join(sorted(self.configuration.unsaved))
        told = f"saved to {self.configuration.base.path}"
        return f"{told}; still unsaved: {rest} (overwrite_config writes them too)" if rest else told

    def _shown(self, change: Change) -> tuple[Any, Any]:
        shown = self.configuration.shown
        return shown(change.key, change.old), shown(change.key, change.new)

    def _get(self, prefix: str) -> Reply:
        settings = self.configuration.current
        keys = [
            key for key in settings.schema() if not prefix or key.path == prefix or key.path.startswith(prefix + ".")
        ]
        if not keys:
            keys = [settings.key(prefix)]  # cameras.cam1.…, or raises with the nearest name
        values = {}
        for key in keys:
            path = prefix if len(keys) == 1 and prefix.startswith("cameras.") else key.path
            values[path] = self.configuration.shown(key, settings.value(path))
        lines = [
            f"{path} = {to_toml(value)}{f' [{key.unit}]' if key.unit else ''}"
            for key, (path, value) in zip(keys, values.items(), strict=True)
        ]
        if len(keys) == 1:
            lines.append(f"{keys[0].help}; {keys[0].expected}; default {to_toml(keys[0].default)}; {keys[0].apply}")
        return Reply(
            status="settings",
            text="\n".join(lines),
            data={"settings": values, "unsaved": sorted(self.configuration.unsaved)},
        )

    def _dump(self, command: DumpConfig) -> Reply:
        if command.format == "toml":
            return Reply(
                status="config", text=as_toml(self.configuration).rstrip(), data={"config": as_json(self.configuration)}
            )
        import json

        config = as_json(self.configuration)
        return Reply(status="config", text=json.dumps(config, indent=1, ensure_ascii=False), data={"config": config})

    def _overwrite(self) -> Reply:
        path = self.configuration.base.path
        count = self.configuration.overwrite()
        said = (
            f"OK: {count} changed settings written to {path}"
            if count
            else f"OK: nothing to write; {path} is up to date"
        )
        return Reply(status="config_written", text=said, data={"path": str(path), "count": count})

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
        return status.health(self._roster, time.monotonic(), hub, machine)

    def _logs(self, command: Logs) -> Reply:
        lines = merge_tails(self.configuration.current.paths.logs, command.process, command.lines)
        if lines is None:
            known = sorted(path.stem for path in self.configuration.current.paths.logs.glob("*.log"))
            return error(f"no log of {command.process!r}; there are: {', '.join(known) or 'none'}", "unknown_process")
        return Reply(status="logs", text="\n".join(lines), data={"lines": lines})


def _versions() -> Reply:
    names = ("shmcam", "numpy", "opencv-python-headless", "av", "aiohttp", "msgpack", "supervisor", "picamera2")
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    found = {"shmcam": found.pop("shmcam"), "python": platform.python_version(), "kernel": platform.release(), **found}
    text = " ".join(f"{name}={value}" for name, value in found.items())
    return Reply(status="version", text=text, data=found)
