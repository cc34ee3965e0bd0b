"""Reads config.toml into typed tables; whatever is wrong is refused with file, line, key, value and expectation.

The tables of config.toml that belong to no single process: [paths] and [logging].
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

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


class PathSettings(Section, frozen=True):
    """[paths]: where things live, relative to the folder of config.toml."""

    run: Annotated[str, setting("sockets, pid and lock files; a tmpfs such as /run/shmcam spares the SD card")] = "run"
    logs: Annotated[str, setting("one log per process, at most 3 x 5 MB each and 50 MB together")] = "logs"
    recordings: Annotated[str, setting("sessions and rolling clips")] = "recordings"
    archives: Annotated[str, setting("what `archive NAME` collected")] = "archives"
    library: Annotated[str, setting("catalogue of everything saved; rebuilt from the files if lost")] = (
        "library.sqlite3"
    )


class LoggingSettings(Section, frozen=True):
    """[logging]."""

    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], setting("least severe line that is kept", apply="live")
    ] = "INFO"
    libcamera: Annotated[
        Literal["DEBUG", "INFO", "WARN", "ERROR", "FATAL"],
        setting("LIBCAMERA_LOG_LEVELS of the capture process, unless its environment has it"),
    ] = "WARN"
    max_bytes: Annotated[int, setting("size of one log file", unit="bytes", ge=10_000, le=100_000_000)] = 5_000_000
    files: Annotated[int, setting("log files kept per process", ge=1, le=20)] = 3
    folder_bytes: Annotated[
        int,
        setting("size of all logs together: the oldest rotated ones go first", unit="bytes", ge=100_000),
    ] = 50_000_000


TABLES: dict[str, type[Section]] = {"paths": PathSettings, "logging": LoggingSettings}


EXIT_CONFIG = 78
"""sysexits.h EX_CONFIG; supervisord.conf lists it in `exitcodes`, so a bad file is not retried for ever."""

LABEL = r"[A-Za-z0-9_-]{1,32}"

S = TypeVar("S", bound=Section)

__all__ = ["EXIT_CONFIG", "LABEL", "Paths", "Settings", "SettingsError", "apply_change", "parse_value", "table_name_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Paths:
    """Absolute places on disk."""

    run: Path
    logs: Path
    recordings: Path
    archives: Path
    library: Path
    captures: Path


@dataclass(frozen=True)
class Settings:
    """One loaded configuration: the file, with the overrides of this start on top."""

    path: Path
    document: Document
    text: str = field(default="", repr=False)
    refused: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Live changes that did not fit so far, by path: the next one may make room for them (see `apply_change`)."""

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> Settings:
        """Read, override (`--set` beats environment beats file) and check the whole file.

        Raises: SettingsError. A missing file is an error too: a typo in --config must not mean "all defaults".
        """
        file = Path(path).absolute()
        text = read(file)
        document = parse(file, text)
        for source, assignment in [*read_environ(environ), *(("--set", one) for one in overrides)]:
            assign(document, source, assignment)
        settings = cls(file, document, text)
        settings.check()
        return settings

    def check(self) -> None:
        """Validate every table for every camera. Raises: SettingsError."""
        known = load_tables()
        for name, value in self.document.items():
            if name != "cameras" and name not in known:
                raise self.diagnostics.unknown_key((), name, [*known, "cameras"])
            if not isinstance(value, dict):
                raise self.diagnostics.bad_value((name,), value, "a table")
        for camera, value in self._camera_documents().items():
            self._check_camera(camera, value)
        for section in known.values():
            self.table(section)
            for camera in self.cameras:
                self.table(section, camera)

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """Puts what is wrong into words."""
        return Diagnostics(self.path, self.text)

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Camera names in file order; `cam0` alone where the file has no [cameras.…]."""
        return tuple(self._camera_documents()) or ("cam0",)

    def table(self, section: type[S], camera: str | None = None) -> S:
        """One table, with [cameras.<camera>] on top if a camera is named. Raises: SettingsError."""
        name = table_name_of(section)
        merged, places = self._merged(name, camera)
        try:
            value = msgspec.convert(merged, section)
        except msgspec.ValidationError as error:
            raise self.diagnostics.from_msgspec(section, merged, places, str(error)) from None
        _refuse_non_finite(self, name, merged)
        return value

    @cached_property
    def folder(self) -> Path:
        """What relative paths in the file are relative to."""
        return self.path.parent

    @cached_property
    def paths(self) -> Paths:
        """Every place of [paths] and export.base_dir, absolute."""
        own = self.table(PathSettings)
        captures = str(self.value("export.base_dir"))
        places = {name: self.folder / getattr(own, name) for name in PathSettings.__struct_fields__}
        return Paths(**places, captures=self.folder / captures)

    @property
    def socket_path(self) -> Path:
        """The hub's Unix socket."""
        return self.paths.run / "control.sock"

    def ring_name(self, camera: str, stream: str = "main") -> str:
        """Segment name of one ring, `/<prefix>.<camera>.<stream>`."""
        return f"/{self.value('ring.prefix')}.{camera}.{stream}"

    def schema(self) -> tuple[Key, ...]:
        """Every key of every table, in file order of the tables."""
        return tuple(list_keys().values())

    def key(self, path: str) -> Key:
        """Find one key; `cameras.<name>.…` paths find the key they override. Raises: SettingsError, nearest named."""
        plain = base_key_of(path)
        known = list_keys()
        if plain not in known:
            raise SettingsError(f"unknown key {path!r}; {suggest_key(plain)}")
        return known[plain]

    def value(self, path: str) -> Any:
        """The effective value of a dotted key. Raises: SettingsError."""
        self.key(path)
        parts = path.split(".")
        camera = parts[1] if parts[0] == "cameras" else None
        table, *rest = base_key_of(path).split(".")
        here: Any = self.table(load_tables()[table], camera)
        for part in rest:
            here = getattr(here, part)
        return here

    def with_changes(self, changes: Mapping[str, Any]) -> Settings:
        """A copy with new values by dotted path, checked once at the end: single steps may contradict each other.

        None takes a key out. Raises: SettingsError and changes nothing.
        """
        document = copy_tables(self.document)
        for path, value in changes.items():
            self.key(path)
            put(document, path.split("."), value)
        changed = Settings(self.path, document)
        changed.check()
        return changed

    # ---- inside

    def _camera_documents(self) -> Document:
        cameras = self.document.get("cameras", {})
        if not isinstance(cameras, dict):
            raise self.diagnostics.bad_value(("cameras",), cameras, "tables [cameras.<name>]")
        return cameras

    def _check_camera(self, camera: str, value: Any) -> None:
        if not re.fullmatch(LABEL, camera):
            raise self.diagnostics.bad_value(("cameras", camera), camera, f"a camera name of the form {LABEL}")
        if not isinstance(value, dict):
            raise self.diagnostics.bad_value(("cameras", camera), value, "a table")

    def _merged(self, name: str, camera: str | None) -> tuple[Document, dict[str, tuple[str, ...]]]:
        """The raw table and, for each key of it, where it stands in the file."""
        merged: Document = {}
        places: dict[str, tuple[str, ...]] = {}
        layers: list[tuple[tuple[str, ...], Document]] = [((name,), self.document.get(name, {}))]
        if camera is not None:
            own = self._camera_documents().get(camera, {})
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
        return merged, places


def _refuse_non_finite(settings: Settings, name: str, merged: Document) -> None:
    """TOML has nan and inf; no key of ours has a use for them, and nan passes every comparison."""
    for key, value in merged.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                _refuse_non_finite(settings, f"{name}.{key}", one)
            elif isinstance(one, float) and not math.isfinite(one):
                raise settings.diagnostics.bad_value((*name.split("."), key), one, "a finite number")


def apply_change(settings: Settings, key: str, value: Any, camera: str = "") -> Settings:
    """Takes over a live change of one key, for all cameras or for one, and logs it.

    The hub checks several changes as a whole, but tells them one by one, so a step may contradict the old value of
    the next. A change that does not fit is kept in `refused` and tried again together with the next one.
    Returns: the new settings; where the change is refused, the old ones.
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
    """Sets the level of this process's log where a change of the settings is one of [logging] level."""
    level = now.value("logging.level")
    if level != before.value("logging.level"):
        logging.getLogger().setLevel(level)
