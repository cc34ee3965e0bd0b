"""The live settings: those of config.toml with the changes of `set` on top. The hub owns them.

Rules: a change is checked as a whole before any of it counts, then written to the journal in the run folder, and only
then sent to the processes: a hub killed at any instant leaves either none of it or all of it. The journal belongs to
one run of the service (its supervisord); a new run starts from config.toml alone. Writing back into config.toml keeps
its comments and order. As JSON and as TOML the settings are shown with secrets masked, TOML with each key's meaning.
"""

from __future__ import annotations

import json
import logging
import time
import tomllib
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import tomlkit
from msgspec import Struct
from tomlkit.exceptions import TOMLKitError

from shmcam.config.errors import explain_unknown_camera
from shmcam.config.masking import mask_secret, mask_secrets
from shmcam.config.schema import Key, find_settings_modules, load_tables
from shmcam.config.settings import Settings, SettingsError, use_log_level
from shmcam.config.toml_file import put, to_toml
from shmcam.control.messages import SettingChanged
from shmcam.hub.config_file import write_back
from shmcam.runtime.atomic_files import open_atomic, open_to_append, read_state

log = logging.getLogger(__name__)

SHARED_TABLES = frozenset({"control", "library", "runtime"})
"""Entry points whose tables every process reads; the others belong to the process of their name."""


STARTUP_S = 10.0
"""Longest time from reading config.toml to being known to the hub, on a small board."""

JOURNAL_BYTES_MAX = 64 * 1024
"""A longer journal is written anew, with the changes that count."""


class Change(Struct, frozen=True):
    """One changed setting."""

    path: str
    """The path in the command: night.dark_threshold, or cameras.cam1.night.dark_threshold."""
    key: Key
    old: Any
    new: Any

    @property
    def camera(self) -> str:
        """The camera in the path; "" for all."""
        parts = self.path.split(".")
        return parts[1] if parts[0] == "cameras" else ""


class LiveSettings:
    """The settings in use and those not saved yet; see the module. Not thread-safe: one writer at a time calls it."""

    def __init__(self, settings: Settings, journal: Path, run: str) -> None:
        """Takes the settings at the start; `run` names this run of the service, a journal of another is ignored."""
        self.base = settings
        self.current = settings
        self.unsaved: dict[str, Any] = {}
        """Path → value of the changes that are not in config.toml."""
        self.restart_keys: dict[str, float] = {}
        """Path → Unix time of the last change, for the keys that take effect with a restart of their process."""
        self._saved_s: dict[str, float] = {}
        """Path → monotonic time at which the last change was written into config.toml."""
        self._journal = journal
        self._run = run
        self._restore()

    def change(self, values: dict[str, Any]) -> list[Change]:
        """Changes settings by path, all or none. Raises: SettingsError with the wrong one; OSError of the journal."""
        if not values:
            raise SettingsError("set: expected KEY VALUE; `get` lists the keys")
        for path in values:
            self.check_camera(path)
        typed = {path: self._convert(path, value) for path, value in values.items()}
        before = self.current
        after = before.with_changes(typed)
        changes = [Change(path, before.key(path), before.value(path), after.value(path)) for path in typed]
        self._append_to_journal(typed)
        self.current, self.unsaved = after, {**self.unsaved, **typed}
        self._note_restart_keys(typed)
        use_log_level(before, after)
        return changes

    def overwrite(self, only: Collection[str] | None = None) -> int:
        """Writes the unsaved changes (`only` these keys) into config.toml. Returns their number.

        It reads the file again first, so that its owner's edits since the start stay, and checks the result before
        it replaces the file. Raises: SettingsError, OSError.
        """
        changes = {path: value for path, value in self.unsaved.items() if only is None or path in only}
        if not changes:
            return 0
        file = self.base.path
        document = read_with_comments(file)
        if self.base.connected and any(path.startswith("cameras.") for path in changes):
            document["cameras"] = self.base.connected  # one that is left out is none
        for path, value in changes.items():
            put(document, path.split("."), value)
        text = tomlkit.dumps(document)
        saved = Settings(file, tomllib.loads(text), text)
        saved.check()
        write_back(file, text)
        self.base = self.base.with_changes(changes)
        self._saved_s |= dict.fromkeys(changes, time.monotonic())
        self._note_restart_keys(changes)
        self.unsaved = {path: value for path, value in self.unsaved.items() if path not in changes}
        self._replace_journal(self.unsaved)
        return len(changes)

    def events_for_new_process(self) -> list[SettingChanged]:
        """Returns the events that a process needs that has read config.toml: it may have done so before a save."""
        base, current, earliest_s = self.base, self.current, time.monotonic() - STARTUP_S
        saved = [path for path, saved_s in self._saved_s.items() if saved_s > earliest_s]
        paths = dict.fromkeys([*saved, *self.unsaved])
        return self.events_of(
            [Change(path, current.key(path), base.value(path), current.value(path)) for path in paths]
        )

    def events_of(self, changes: list[Change]) -> list[SettingChanged]:
        """Returns the events of live keys: one for all cameras, or one per camera that the change reaches."""
        events = []
        for change in changes:
            if change.key.apply != "live":
                continue
            cameras = [change.camera] if change.camera else self._reached_cameras(change)
            events += [SettingChanged(key=change.key.path, old=change.old, new=change.new, camera=c) for c in cameras]
        return events

    def cameras_with_own_value(self, change: Change) -> list[str]:
        """Returns the cameras that a change for all does not reach, because they have a value of their own."""
        document, path = self.current.document, change.key.path
        return [] if change.camera else [name for name in self.current.cameras if has_own_value(document, name, path)]

    def own_values(self) -> dict[str, Any]:
        """Returns the values that cameras have of their own, by path, such as cameras.cam1.night.enable."""
        settings = self.current
        own = settings.document.get("cameras", {})
        return {
            path: settings.value(path)
            for camera in settings.cameras
            if own.get(camera)
            for key in settings.schema()
            if has_own_value(settings.document, camera, key.path)
            for path in [f"cameras.{camera}.{key.path.removeprefix('camera.')}"]
        }

    def check_camera(self, path: str) -> None:
        """Refuses an unknown camera: its table, saved beside no other, would be the only camera from then on.

        Raises: SettingsError.
        """
        if not self._has_camera_of(path):
            known = explain_unknown_camera(path.split(".")[1], self.base.cameras)
            raise SettingsError(f"{path}: {known} (new ones are added in config.toml)")

    def _has_camera_of(self, path: str) -> bool:
        """Returns False for a key of a camera that is not in config.toml (any more)."""
        parts = path.split(".")
        return parts[0] != "cameras" or len(parts) < 2 or parts[1] in self.base.cameras

    # ---- inside

    def _note_restart_keys(self, paths: Collection[str]) -> None:
        """Notes the time of changes that need a restart: a process that started before does not know them."""
        now_utc_s = time.time()
        noted = {path: now_utc_s for path in paths if self.current.key(path).apply == "restart"}
        self.restart_keys = self.restart_keys | noted  # a new one: another thread may be reading

    def _reached_cameras(self, change: Change) -> list[str]:
        """Returns [""] if the change holds for every camera, else those without a value of their own."""
        own = self.cameras_with_own_value(change)
        return [camera for camera in self.current.cameras if camera not in own] if own else [""]

    def _convert(self, path: str, value: Any) -> Any:
        """Converts text of a command to the key's type; other values stay as they are."""
        key = self.current.key(path)
        if key.apply == "file":
            raise SettingsError(f"{path} can only be changed in {self.base.path}, then: shmcam restart")
        return key.parse_text(value) if isinstance(value, str) else value

    def _append_to_journal(self, changes: dict[str, Any]) -> None:
        """Adds a record. A power cut ends the run that it belongs to, so it need not wait for the disk.

        A record that a kill cut off is no JSON, and the next one begins a line. A journal that is full, or no file, is
        replaced. Raises: OSError.
        """
        record = f"\n{self._to_record(changes)}".encode()
        with suppress(OSError), open_to_append(self._journal) as stream:
            if stream.tell() + len(record) <= JOURNAL_BYTES_MAX:
                stream.write(record)
                stream.flush()
                return
        self._replace_journal({**self.unsaved, **changes})

    def _replace_journal(self, changes: dict[str, Any]) -> None:
        if not changes:
            self._journal.unlink(missing_ok=True)
            return
        with open_atomic(self._journal, replace=True, durable=False) as stream:
            stream.write(self._to_record(changes).encode())

    def _to_record(self, changes: dict[str, Any]) -> str:
        return json.dumps({"run": self._run, "config": str(self.base.path), "changes": changes})

    def _restore(self) -> None:
        """Takes over the journal of a hub that was killed in this same run."""
        try:
            records = [record for line in read_state(self._journal).splitlines() if (record := _read_record(line))]
            changes: dict[str, Any] = {}
            for record in records:
                if record["run"] == self._run and record["config"] == str(self.base.path):
                    changes |= {path: value for path, value in record["changes"].items() if self._has_camera_of(path)}
            if not changes:
                return
            self.current, self.unsaved = self.base.with_changes(changes), changes
            use_log_level(self.base, self.current)
            log.info("took over unsaved settings count=%d", len(self.unsaved))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            log.warning("journal of changed settings is unusable, starting from config.toml: %s", problem)


def _read_record(line: bytes) -> Any:
    """Returns a record of the journal; None for one that was cut off."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def roles_to_restart(changes: list[Change]) -> list[str]:
    """Returns the roles that need a restart for changes that are not live; ["all"] for the tables that all read."""
    return roles_of([change.key for change in changes if change.key.apply != "live"])


def roles_of(keys: Collection[Key]) -> list[str]:
    """Returns the roles whose processes read these keys; ["all"] for the tables that all read."""
    owner_of = _load_owners()
    owners = {owner_of[key.path.split(".")[0]] for key in keys}
    return ["all"] if owners & SHARED_TABLES else sorted(owners)


@cache
def _load_owners() -> dict[str, str]:
    """Returns the entry point that declares each table, by the table's name."""
    return {name: point.name for point in find_settings_modules() for name in point.load().TABLES}


def read_with_comments(file: Path) -> tomlkit.TOMLDocument:
    """Returns the document in a file, with its comments. Raises: SettingsError, OSError."""
    try:
        return tomlkit.parse(read_state(file).decode("utf-8-sig"))
    except (TOMLKitError, ValueError, RecursionError) as problem:
        raise SettingsError(f"{file}: was edited and is not TOML any more: {problem}") from problem


def has_own_value(document: dict[str, Any], camera: str, path: str) -> bool:
    """Returns whether [cameras.<camera>…] sets a key itself."""
    here: Any = document.get("cameras", {}).get(camera, {})
    parts = path.split(".")
    for part in parts[1:] if parts[0] == "camera" else parts:
        if not isinstance(here, dict) or part not in here:
            return False
        here = here[part]
    return True


# ---- as text


def as_json(live_settings: LiveSettings) -> dict[str, Any]:
    """Returns {table: {key: value}}, nested as in the file, secrets masked."""
    settings = live_settings.current
    tables = {name: msgspec.to_builtins(settings.table(section)) for name, section in load_tables().items()}
    overrides = _camera_overrides(settings)
    return mask_secrets(tables) | ({"cameras": overrides} if overrides else {})


def as_toml(live_settings: LiveSettings) -> str:
    """Returns a config.toml of the settings in use; keys without a value are left out."""
    settings = live_settings.current
    tables: dict[str, list[str]] = {}
    for key in settings.schema():
        value = mask_secret(key, settings.value(key.path))
        table, _, name = key.path.rpartition(".")
        if value is not None:
            comment = _comment_of(key, is_changed=key.path in live_settings.unsaved)
            tables.setdefault(table, []).append(f"{name} = {to_toml(_to_plain(value))} # {comment}")
    blocks = ["\n".join([f"[{table}]", *lines, ""]) for table, lines in tables.items()]
    overrides = _camera_overrides(settings)
    return "\n".join([*blocks, *([tomlkit.dumps({"cameras": overrides})] if overrides else [])])


def _camera_overrides(settings: Settings) -> dict[str, Any]:
    """Returns the tables of [cameras.…], secrets (a camera's URL holds its password) masked."""
    cameras: dict[str, Any] = _to_plain(mask_secrets(settings.document.get("cameras", {}), "cameras."))
    return cameras


def _comment_of(key: Key, *, is_changed: bool) -> str:
    unit = f" [{key.unit}]" if key.unit else ""
    return f"{key.help}{unit}; {key.apply}{'; CHANGED, not saved' if is_changed else ''}"


def _to_plain(value: Any) -> Any:
    """Turns tuples into lists, as TOML and JSON need them."""
    if isinstance(value, tuple | list):
        return [_to_plain(item) for item in value]
    return {str(k): _to_plain(v) for k, v in value.items()} if isinstance(value, dict) else value
