"""Reads config.toml into typed tables and takes over live changes; declares the tables [paths] and [logging].

A wrong file is refused with file, line, key, value and expectation.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import Struct

from shmcam.config.errors import Diagnostics, suggest_key
from shmcam.config.schema import CAMERA_TABLE, Key, Section, base_key_of, list_keys, load_tables, setting, table_name_of
from shmcam.config.toml_file import (
    Document,
    SettingsError,
    assign,
    copy_tables,
    parse,
    parse_value,
    put,
    read,
    read_environ,
)

SHARED_FOLDERS = frozenset(("/", "//", "/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run", "/home"))  # noqa: S108  (refused)
"""Folders that cannot be [paths] run: sockets and locks of other programs are there."""


class PathSettings(Section, frozen=True):
    """[paths]: files and folders, relative to the folder of config.toml."""

    run: Annotated[str, setting("sockets, pid and lock files; a tmpfs such as /run/shmcam spares the SD card")] = "run"
    logs: Annotated[str, setting("one log per process, at most 3 x 5 MB each and 50 MB together")] = "logs"
    recordings: Annotated[str, setting("sessions and rolling clips")] = "recordings"
    archives: Annotated[str, setting("what `archive NAME` collected")] = "archives"
    library: Annotated[str, setting("catalogue of everything saved; rebuilt from the files if lost")] = (
        "library.sqlite3"
    )

    def __post_init__(self) -> None:
        """Refuses what is no place of our own. Raises: ValueError."""
        for name in self.__struct_fields__:
            value = str(getattr(self, name))
            if not value.strip():
                raise ValueError(f"{name} = {value!r} must be the path of a file or folder")
        if os.path.normpath(self.run) in SHARED_FOLDERS:
            raise ValueError(f"run = {self.run!r} is shared with other programs; take a folder of its own below it")


class LoggingSettings(Section, frozen=True):
    """[logging]: what is logged, and how much room the logs may take."""

    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        setting("least severe line that is kept", apply="live", spellings={"warn": "WARNING", "fatal": "CRITICAL"}),
    ] = "INFO"
    libcamera: Annotated[
        Literal["DEBUG", "INFO", "WARN", "ERROR", "FATAL"],
        setting(
            "LIBCAMERA_LOG_LEVELS of the capture process, unless its environment has it", spellings={"warning": "WARN"}
        ),
    ] = "WARN"
    max_bytes: Annotated[int, setting("size of one log file", unit="bytes", ge=10_000, le=100_000_000)] = 5_000_000
    files: Annotated[int, setting("log files kept per process", ge=1, le=20)] = 3
    folder_bytes: Annotated[
        int,
        setting("size of all logs together: the oldest rotated ones go first", unit="bytes", ge=100_000, le=10**12),
    ] = 50_000_000


TABLES: dict[str, type[Section]] = {"paths": PathSettings, "logging": LoggingSettings}


CONNECTED = "connected_cameras.json"
"""The note in [paths] run of which cameras are connected (shmcam.cli.camera_autoconfig)."""

CONNECTED_BYTES_MAX = 64 * 1024

EXIT_USAGE = 2
"""Wrong words or options, as argparse has it."""

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h; supervisord.conf lists it in `exitcodes`, so that a bad file is not tried for ever."""

LABEL = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"
"""The pattern of a camera's name and of a label. `_` and `.` begin names of state, `-` begins options."""

LONG_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
"""The pattern of an archive's name and of a session's folder, which holds a prefix, a time and a label."""

PER_CAMERA = ("capture", "analyzer", "recorder")
"""Programs that each camera has one of."""
FOR_ALL = ("exporter", "streamer", "watchdog")
"""Programs that serve every camera, without the hub, to which they report."""
PROGRAMS = ("hub", *PER_CAMERA, *FOR_ALL)
"""The programs of supervisord.conf. Cameras cannot be called so: supervisord has a group of each name."""

WORDS_OF_COMMANDS = {
    *("all", "start", "stop", "status", "trigger", "build", "on", "off", "auto", "last", "live"),
    *("jpg", "png", "npy", "tiff"),
}
"""Words that stand where a camera's name may stand, too: `record stop`, `save png`, `supervisorctl restart all`."""

LABEL_FORM = "1 to 32 letters, digits, _ and -, the first a letter or digit"
"""LABEL in words."""

FORMER_LABEL, FORMER_LONG_NAME = r"[A-Za-z0-9_-]{1,32}", r"[A-Za-z0-9_-]{1,64}"
"""As they were before: what exists may be called so, and rings, whose names hold neither state nor options."""

S = TypeVar("S", bound=Section)

__all__ = [
    "EXIT_CONFIG",
    "EXIT_USAGE",
    "FORMER_LABEL",
    "FORMER_LONG_NAME",
    "LABEL",
    "LABEL_FORM",
    "LONG_NAME",
    "Paths",
    "Settings",
    "SettingsError",
    "apply_change",
    "parse_value",
    "table_name_of",
]

log = logging.getLogger(__name__)


class Paths(Struct, frozen=True):
    """The files and folders of [paths], absolute."""

    run: Path
    logs: Path
    recordings: Path
    archives: Path
    library: Path
    captures: Path
    links: Mapping[str, Path] = {}
    """The folders that are links, by their names in the file; such a link leads nowhere while its disk is away."""

    def find_dangling_link(self, folder: Path) -> Path | None:
        """Returns the link that should lead to this folder and leads nowhere; None: nothing is wrong with it."""
        links = (link for name, link in self.links.items() if folder.is_relative_to(getattr(self, name)))
        return next((link for link in links if not link.exists()), None)


@dataclass(frozen=True)
class Settings:
    """A checked configuration: the file, with the overrides of this start and the live changes on top."""

    path: Path
    document: Document
    text: str = field(default="", repr=False)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Where values come from that are not the file's, by path: the name of a variable, --set, or (live) set."""
    refused: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Live changes that did not fit so far, by path; `apply_change` tries them again with the next one."""
    connected: Document = field(default_factory=dict)
    """The tables [cameras.…] of the cameras that were found connected, if the file leaves open which there are."""

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> Settings:
        """Reads, overrides (`--set` beats environment beats file) and checks the whole file.

        Raises: SettingsError. A missing file is an error, too: a typo in --config must not mean "all defaults".
        """
        file = Path(path).absolute()
        assignments = (*read_environ(environ), *(("--set", line) for line in overrides))
        checked = _check_text(file, read(file), assignments)
        settings = replace(checked)  # its `paths` are found anew: where links lead may have changed since
        settings._tables.update(checked._tables)
        return settings.with_connected_cameras()

    def with_connected_cameras(self) -> Settings:
        """Returns the settings with the cameras that `shmcam run` found connected, if the file leaves it open."""
        connected = _read_connected(self.paths.run / CONNECTED) if self.leaves_cameras_open else {}
        if not connected:
            return replace(self, connected={}) if self.connected else self
        settings = replace(self, connected=connected)
        try:
            settings.check()
        except SettingsError as problem:
            log.warning("the note of connected cameras is not usable: %s", problem)
            return replace(self, connected={})
        return settings

    def check(self) -> None:
        """Checks every table for every camera. Raises: SettingsError."""
        known = load_tables()
        _refuse_nul(self)
        for name, value in self.document.items():
            if name != "cameras" and name not in known:
                raise self.diagnostics.unknown_key((), name, [*known, "cameras"])
            if not isinstance(value, dict):
                raise self.diagnostics.bad_value((name,), value, "a table")
        for camera, value in self._read_cameras().items():
            self._check_camera(camera, value)
        for section in known.values():
            self.table(section)
            for camera in self.cameras:
                self.table(section, camera)

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """Makes the errors about this file."""
        return Diagnostics(self.path, self.text, self.sources)

    @cached_property
    def leaves_cameras_open(self) -> bool:
        """True if the configuration names no cameras and no device: those that are connected are used."""
        source, index, device = (self.value(f"camera.{key}") for key in ("source", "index", "device"))
        wants_real = source in ("auto", "picamera2", "v4l2")
        return not self.document.get("cameras") and wants_real and index < 0 and not device

    def has_foreign_times(self, camera: str) -> bool:
        """Tells whether its frames bear times of their own, which lie before or ahead of the clock."""
        source, realtime = (self.value(f"cameras.{camera}.camera.{key}") for key in ("source", "realtime"))
        return source == "replay" or (source == "file" and not realtime)

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """The names of the cameras in file order; `cam0` alone if the file has no [cameras.…]."""
        return tuple(self._read_cameras()) or ("cam0",)

    def table(self, section: type[S], camera: str | None = None) -> S:
        """Returns one table, with [cameras.<camera>] on top if a camera is named. Raises: SettingsError."""
        name = table_name_of(section)
        if (known := self._tables.get((name, camera))) is not None:
            return cast("S", known)
        merged, places = self._merge(name, camera)
        try:
            value = msgspec.convert(merged, section)
        except msgspec.ValidationError as error:
            raise self.diagnostics.from_msgspec(section, merged, places, str(error)) from None
        _refuse_non_finite(self, name, merged)
        self._tables[name, camera] = value
        return value

    @cached_property
    def _tables(self) -> dict[tuple[str, str | None], Section]:
        """The tables that were asked for, by name and camera; nothing here gets old, because no document changes."""
        return {}

    @cached_property
    def _values(self) -> dict[str, Any]:
        """The values that were asked for, by path."""
        return {}

    @cached_property
    def folder(self) -> Path:
        """The folder of the file; relative paths in the file start there."""
        return self.path.parent

    @cached_property
    def paths(self) -> Paths:
        """The places of [paths] and export.base_dir, absolute; those of saved files also without links and `..`.

        The library compares the paths of files with those of its folders, and deletes only inside them.
        """
        own = self.table(PathSettings)
        places = {name: self.folder / getattr(own, name) for name in PathSettings.__struct_fields__}
        places["captures"] = self.folder / str(self.value("export.base_dir"))
        links = {}
        for name in ("captures", "recordings", "archives"):
            link, places[name] = places[name], Path(os.path.realpath(places[name]))  # also where it is away
            if link.is_symlink():
                links[name] = link
        places["library"] = Path(os.path.realpath(places["library"].parent)) / places["library"].name
        return Paths(**places, links=links)

    @property
    def socket_path(self) -> Path:
        """The hub's Unix socket."""
        return self.paths.run / "control.sock"

    def ring_name(self, camera: str, stream: str = "main") -> str:
        """Returns the name of one ring's segment, `/<prefix>.<camera>.<stream>`."""
        return f"/{self.value('ring.prefix')}.{camera}.{stream}"

    def schema(self) -> tuple[Key, ...]:
        """Returns every key of every table, in file order of the tables."""
        return tuple(list_keys().values())

    def key(self, path: str) -> Key:
        """Returns one key; `cameras.<name>.…` gives the key that it overrides. Raises: SettingsError with a hint."""
        plain = base_key_of(path)
        known = list_keys()
        if plain not in known:
            raise SettingsError(f"unknown key {path!r}; {suggest_key(plain)}")
        return known[plain]

    def value(self, path: str) -> Any:
        """Returns the value of a dotted key that is in use. Raises: SettingsError."""
        if path in self._values:
            return self._values[path]
        table, *rest = self.key(path).path.split(".")
        camera = path.split(".")[1] if path.startswith("cameras.") else None
        value: Any = self.table(load_tables()[table], camera)
        for part in rest:
            value = getattr(value, part)
        self._values[path] = value
        return value

    def with_changes(self, changes: Mapping[str, Any]) -> Settings:
        """Returns a copy with new values by dotted path, checked as a whole: single values may contradict each other.

        None removes a key. Raises: SettingsError.
        """
        document, changed_tables = copy_tables(self.document), set()
        for path, value in changes.items():
            self.key(path)
            put(document, path.split("."), value)
            changed_tables.add(base_key_of(path).split(".")[0])
        changed = Settings(self.path, document, sources=dict.fromkeys(changes, "set"), connected=self.connected)
        changed._tables.update((at, table) for at, table in self._tables.items() if at[0] not in changed_tables)
        changed.check()
        return changed

    # ---- inside

    def _read_cameras(self) -> Document:
        cameras = self.document.get("cameras", {})
        if not isinstance(cameras, dict):
            raise self.diagnostics.bad_value(("cameras",), cameras, "tables [cameras.<name>]")
        own = {name: {**found, **cameras.get(name, {})} for name, found in self.connected.items()}
        return {**cameras, **own}

    def _check_camera(self, camera: str, value: Any) -> None:
        if not re.fullmatch(LABEL, camera):
            raise self.diagnostics.bad_value(("cameras", camera), camera, f"a camera name of {LABEL_FORM}")
        section = load_tables().get(camera)
        if camera in PROGRAMS or (section and section.is_of_program):
            raise self.diagnostics.bad_value(("cameras", camera), camera, "a camera name that is not a program's")
        if camera.lower() in WORDS_OF_COMMANDS:
            raise self.diagnostics.bad_value(("cameras", camera), camera, "a camera name that is no word of commands")
        if not isinstance(value, dict):
            raise self.diagnostics.bad_value(("cameras", camera), value, "a table")

    def _merge(self, name: str, camera: str | None) -> tuple[Document, dict[str, tuple[str, ...]]]:
        """Returns the raw table and the place of each of its keys in the file."""
        merged: Document = {}
        places: dict[str, tuple[str, ...]] = {}
        layers: list[tuple[tuple[str, ...], Document]] = [((name,), self.document.get(name, {}))]
        if camera is not None:
            own = self._read_cameras().get(camera, {})
            if name == CAMERA_TABLE:
                plain = {key: value for key, value in own.items() if key not in load_tables()}
                layers.append((("cameras", camera), plain))
            if name in own:
                layers.append((("cameras", camera, name), own[name]))
        for place, layer in layers:
            if not isinstance(layer, dict):
                raise self.diagnostics.bad_value(place, layer, "a table")
            for key, value in layer.items():
                both = isinstance(value, dict) and isinstance(merged.get(key), dict)
                merged[key] = {**merged[key], **value} if both else value
                places[key] = (*place, key)
        return _respell(name, merged), places


@lru_cache(maxsize=1)
def _check_text(file: Path, text: str, assignments: tuple[tuple[str, str], ...]) -> Settings:
    """Returns the checked settings of a file's text. A forked program finds those of its parent, if nothing changed."""
    document = parse(file, text)
    for source, assignment in assignments:
        assign(document, source, assignment)
    sources = {assignment.partition("=")[0].strip(): source for source, assignment in assignments}
    settings = Settings(file, document, text, sources)
    settings.check()
    return settings


def _read_connected(note: Path) -> Document:
    """Returns the tables [cameras.…] of a note; none if there is no usable one."""
    try:
        if not note.is_file():  # a FIFO in its place would keep open() waiting
            return {}
        with note.open("rb") as file:
            cameras = json.loads(file.read(CONNECTED_BYTES_MAX))["cameras"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return dict(cameras) if isinstance(cameras, dict) else {}


def _respell(table: str, values: Document) -> Document:
    """Returns the values of a table as they are declared, whichever of their spellings the file has."""
    keys, respelled = list_keys(), {}
    for name, value in values.items():
        path = f"{table}.{name}"
        if path in keys:
            respelled[name] = keys[path].respell(value)
        else:
            respelled[name] = _respell(path, value) if isinstance(value, dict) else value
    return respelled


def _refuse_nul(settings: Settings) -> None:
    """Refuses text with a NUL in it, which no path, address, argument of a program or header can have."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), settings.document)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [((*place, name), inside) for name, inside in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(place, inside) for inside in value]
        elif isinstance(value, str) and "\0" in value:
            raise settings.diagnostics.bad_value(place, value, "text without NUL characters")


def _refuse_non_finite(settings: Settings, name: str, merged: Document) -> None:
    """Refuses nan and inf, which TOML has: no key has a use for them, and nan passes every comparison."""
    for key, value in merged.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                _refuse_non_finite(settings, f"{name}.{key}", item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise settings.diagnostics.bad_value((*name.split("."), key), item, "a finite number")


def apply_change(settings: Settings, key: str, value: Any, camera: str = "") -> Settings:
    """Takes over a live change of one key, for all cameras or for one, and logs it.

    The hub checks several changes as a whole but sends them one by one, so a change may contradict the old value of
    a later one. A change that does not fit is kept in `refused` and tried again together with the next one.
    Returns: the new settings; the old ones if the change is refused.
    """
    path = f"cameras.{camera}.{key}" if camera and not key.startswith("cameras.") else key
    together = {**settings.refused, path: value}
    problem = None
    for changes in (together, {path: value}):
        try:
            changed = settings.with_changes(changes)
        except SettingsError as error:
            problem = error
            continue
        for name, new in changes.items():
            log.info("setting taken over key=%s value=%s", name, json.dumps(new))
        use_log_level(settings, changed)
        return replace(changed, refused={} if changes is together else settings.refused)
    log.warning("setting refused key=%s: %s", path, problem)
    return replace(settings, refused=together)


def use_log_level(before: Settings, now: Settings) -> None:
    """Sets the level of this process's log if [logging] level has changed."""
    level = now.value("logging.level")
    if level != before.value("logging.level"):
        logging.getLogger().setLevel(level)
