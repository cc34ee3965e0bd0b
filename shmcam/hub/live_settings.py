"""The settings in use: what config.toml says, plus what `set` has changed since. Owned by the hub.

Rules: a change is checked as a whole before any of it counts, then written to the journal in the run folder, and only
then told to the processes: a hub killed at any instant leaves either none of it or all of it. The journal belongs to
one run of the service (its supervisord); a new run starts from config.toml alone.

Changed keys in a configuration's tables, plain ones or tomlkit's with their comments.

The configuration in use, as JSON and as TOML with each key's meaning beside it.
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
from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from shmcam.config.schema import FILE_ONLY, TABLES_GROUP, Key, list_keys
from shmcam.config.settings import Settings, SettingsError, parse_value, use_log_level
from shmcam.control.messages import SettingChanged
from shmcam.runtime.files import open_atomic


def put(document: Any, parts: list[str], value: Any) -> None:
    """Set one key, making the tables on the way; None takes it out. *Raises* SettingsError."""
    for part in parts[:-1]:
        if part not in document:
            document[part] = tomlkit.table() if isinstance(document, tomlkit.items.Table | tomlkit.TOMLDocument) else {}
        document = document[part]
        if not isinstance(document, dict):
            raise SettingsError(f"{'.'.join(parts)}: {part} is not a table")
    if value is None:  # TOML has no null: an optional key without a value is one that is not there
        document.pop(parts[-1], None)
        return
    document[parts[-1]] = value


def commented(path: Path) -> tomlkit.TOMLDocument:
    """Return what stands in the file, with its comments. *Raises* SettingsError, OSError."""
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    except (TOMLKitError, ValueError, RecursionError) as problem:
        raise SettingsError(f"{path}: was edited and is not TOML any more: {problem}") from problem


def has(document: dict[str, Any], camera: str, path: str) -> bool:
    """Tell whether [cameras.<camera>…] sets a key itself."""
    here: Any = document.get("cameras", {}).get(camera, {})
    parts = path.split(".")
    for part in parts[1:] if parts[0] == "camera" else parts:
        if not isinstance(here, dict) or part not in here:
            return False
        here = here[part]
    return True


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
        after = before.with_changes(typed)
        changes = [Change(path, before.key(path), before.value(path), after.value(path)) for path in typed]
        unsaved = {**self.unsaved, **typed}
        self._write_journal(unsaved)
        self.current, self.unsaved = after, unsaved
        use_log_level(before, after)
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
        with open_atomic(path, replace=True, mode=path.stat().st_mode & 0o777) as file:
            file.write(text.encode())
        self.base = self.base.with_changes(written)
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
        plain = parse_value(value)
        if key.type == "list" and isinstance(plain, str):
            return [parse_value(word) for word in re.split(r"[\s,]+", plain.strip(" []")) if word]
        return float(plain) if key.type == "number" and type(plain) is int else plain

    def _write_journal(self, unsaved: dict[str, Any]) -> None:
        with open_atomic(self._journal, replace=True) as file:
            file.write(json.dumps({"run": self._run, "config": str(self.base.path), "changes": unsaved}).encode())

    def _restore(self) -> None:
        """Take over the journal of a hub that was killed in this same run."""
        try:
            found = json.loads(self._journal.read_bytes())
            if found["run"] == self._run and found["config"] == str(self.base.path):
                self.current, self.unsaved = self.base.with_changes(found["changes"]), found["changes"]
                use_log_level(self.base, self.current)
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


if TYPE_CHECKING:
    pass


def as_json(configuration: Configuration) -> dict[str, Any]:
    """Return {table: {key: value}}, nested as in the file, secrets masked."""
    settings = configuration.current
    found: dict[str, Any] = {}
    for key in settings.schema():
        *tables, name = key.path.split(".")
        here = found
        for table in tables:
            here = here.setdefault(table, {})
        here[name] = _plain(configuration.shown(key, settings.value(key.path)))
    if own := _cameras(configuration):
        found["cameras"] = own
    return found


def as_toml(configuration: Configuration) -> str:
    """Return a config.toml that says what is in use; keys without a value are left out."""
    settings = configuration.current
    document = tomlkit.document()
    for key in settings.schema():
        value = _plain(configuration.shown(key, settings.value(key.path)))
        if value is None:
            continue
        *tables, name = key.path.split(".")
        here: Any = document
        for table in tables:
            here = here.setdefault(table, tomlkit.table())
        item = tomlkit.item(value)
        item.comment(_note(key, changed=key.path in configuration.unsaved))
        here[name] = item
    text = tomlkit.dumps(document)
    own = _cameras(configuration)
    return text + ("\n" + tomlkit.dumps({"cameras": own}) if own else "")


def _cameras(configuration: Configuration) -> dict[str, Any]:
    """Return what [cameras.…] overrides, secrets (a camera's URL holds its password) masked."""
    return {
        name: _masked(configuration, f"cameras.{name}", own)
        for name, own in configuration.current.document.get("cameras", {}).items()
    }


def _masked(configuration: Configuration, path: str, value: Any) -> Any:
    plain = path.split(".", 2)[-1]
    if isinstance(value, dict) and not list_keys().keys() & {plain, f"camera.{plain}"}:
        return {name: _masked(configuration, f"{path}.{name}", inner) for name, inner in value.items()}
    return _plain(configuration.shown(configuration.current.key(path), value))


def _note(key: Key, *, changed: bool) -> str:
    unit = f" [{key.unit}]" if key.unit else ""
    return f"{key.help}{unit}; {key.apply}{'; CHANGED, not saved' if changed else ''}"


def _plain(value: Any) -> Any:
    """Turn tuples into lists, as TOML and JSON want them."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return {str(k): _plain(v) for k, v in value.items()} if isinstance(value, dict) else value
