"""The settings in use: what config.toml says, plus what `set` has changed since. Owned by the hub.

Rules: a change is checked as a whole before any of it counts, then written to the journal in the run folder, and only
then told to the processes: a hub killed at any instant leaves either none of it or all of it. The journal belongs to
one run of the service (its supervisord); a new run starts from config.toml alone.
"""

from __future__ import annotations

import json
import logging
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import tomlkit

from control.changes import commented, has, put, with_changes
from control.messages import SettingChanged
from service.files import whole_file
from service.schema import FILE_ONLY, TABLES_GROUP, Key
from service.settings import Settings, SettingsError, parsed_value

log = logging.getLogger(__name__)

MASK = "***"
"""Shown instead of a secret."""


@dataclass(frozen=True)
class Change:
    """One setting that was changed."""

    path: str
    """As given: night.dark_threshold, or cameras.cam1.night.dark_threshold."""
    key: Key
    old: Any
    new: Any

    @property
    def camera(self) -> str:
        """The camera it is for; "" for all."""
        parts = self.path.split(".")
        return parts[1] if parts[0] == "cameras" else ""


class Configuration:
    """See the module. Not thread-safe: one writer at a time calls it."""

    def __init__(self, settings: Settings, journal: Path, run: str) -> None:
        """Take the settings as started; `run` names this run of the service, so that an old journal is not believed."""
        self.base = settings
        self.current = settings
        self.unsaved: dict[str, Any] = {}
        """Path → value of what config.toml does not have yet."""
        self._journal = journal
        self._run = run
        self._restore()

    def change(self, wanted: dict[str, Any]) -> list[Change]:
        """Change settings, all or none. *Raises* SettingsError saying which is wrong; OSError of the journal's disk."""
        if not wanted:
            raise SettingsError("set: expected KEY VALUE; `get` lists the keys")
        for path in wanted:
            self._check_camera(path)
        typed = {path: self._typed(path, value) for path, value in wanted.items()}
        before = self.current
        after = with_changes(before, typed)
        changes = [Change(path, before.key(path), before.value(path), after.value(path)) for path in typed]
        unsaved = {**self.unsaved, **typed}
        self._write_journal(unsaved)
        self.current, self.unsaved = after, unsaved
        return changes

    def _check_camera(self, path: str) -> None:
        """A mistyped name would make a table, and saved beside no other, the only camera from then on."""
        parts = path.split(".")
        if parts[0] == "cameras" and len(parts) > 1 and parts[1] not in self.current.cameras:
            known = ", ".join(self.current.cameras)
            raise SettingsError(f"{path}: no camera {parts[1]!r}; cameras: {known} (new ones are added in config.toml)")

    def overwrite(self, only: Collection[str] | None = None) -> int:
        """Write the unsaved changes (`only` these keys) into config.toml, keeping comments and order. Returns how many.

        The file is read again first, so that what its owner edited meanwhile stays; the result is checked before it
        takes the file's place. *Raises* SettingsError, OSError.
        """
        written = {key: value for key, value in self.unsaved.items() if only is None or key in only}
        if not written:
            return 0
        path = self.base.path
        document = commented(path)
        for key, value in written.items():
            put(document, key.split("."), value)
        text = tomlkit.dumps(document)
        saved = Settings(path, tomllib.loads(text), text)
        saved.check()
        with whole_file(path, replace=True, mode=path.stat().st_mode & 0o777) as file:
            file.write(text.encode())
        self.base = with_changes(self.base, written)
        self.unsaved = {key: value for key, value in self.unsaved.items() if key not in written}
        if self.unsaved:
            self._write_journal(self.unsaved)
        else:
            self._journal.unlink(missing_ok=True)
        return len(written)

    def live_changes(self) -> list[SettingChanged]:
        """Return what a process that has just read config.toml must still be told."""
        return [
            event
            for path in self.unsaved
            for event in self.events(
                [Change(path, self.current.key(path), self.base.value(path), self.current.value(path))]
            )
        ]

    def events(self, changes: list[Change]) -> list[SettingChanged]:
        """Return what to tell the processes: live keys; one event for all, or one per camera the change reaches."""
        told = []
        for change in changes:
            if change.key.apply != "live":
                continue
            cameras = [change.camera] if change.camera else self._reached(change)
            told += [SettingChanged(key=change.key.path, old=change.old, new=change.new, camera=c) for c in cameras]
        return told

    def overriding(self, change: Change) -> list[str]:
        """Return the cameras that a change for all does not reach, because they have a value of their own."""
        document, path = self.current.document, change.key.path
        return [] if change.camera else [name for name in self.current.cameras if has(document, name, path)]

    def shown(self, key: Key, value: Any) -> Any:
        """Return a value as it may be shown: secrets masked."""
        return MASK if key.secret and value else value

    # ---- inside

    def _reached(self, change: Change) -> list[str]:
        """Return [""] if the change holds for every camera, else those that have no value of their own."""
        own = self.overriding(change)
        return [camera for camera in self.current.cameras if camera not in own] if own else [""]

    def _typed(self, path: str, value: Any) -> Any:
        key = self.current.key(path)
        if FILE_ONLY.search(key.path):
            raise SettingsError(f"{path} can only be changed in {self.base.path}, then: shmcam restart")
        if not isinstance(value, str) or (key.type == "text" and not key.choices):
            return value
        if key.choices and value in key.choices:
            return value
        plain = parsed_value(value)
        if key.type == "list" and isinstance(plain, str):
            return [parsed_value(word) for word in re.split(r"[\s,]+", plain.strip(" []")) if word]
        return float(plain) if key.type == "number" and type(plain) is int else plain

    def _write_journal(self, unsaved: dict[str, Any]) -> None:
        with whole_file(self._journal, replace=True) as file:
            file.write(json.dumps({"run": self._run, "config": str(self.base.path), "changes": unsaved}).encode())

    def _restore(self) -> None:
        """Take over the journal of a hub that was killed in this same run."""
        try:
            found = json.loads(self._journal.read_bytes())
            if found["run"] == self._run and found["config"] == str(self.base.path):
                self.current, self.unsaved = with_changes(self.base, found["changes"]), found["changes"]
                log.info("took over unsaved settings count=%d", len(self.unsaved))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as problem:
            log.warning("journal of changed settings is unusable, starting from config.toml: %s", problem)


def restart_for(changes: list[Change]) -> list[str]:
    """Return the roles that must be restarted for changes that are not live; ["all"] for what everyone reads."""
    tables = {name: point.name for point in entry_points(group=TABLES_GROUP) for name in point.load().TABLES}
    owners = {tables[c.key.path.split(".")[0]] for c in changes if c.key.apply != "live"}
    everyone = owners & {"service", "library", "control"}
    return ["all"] if everyone else sorted(owners)
