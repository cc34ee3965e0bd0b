"""A small service on disk: settings with unique folders, a catalogue, and files to put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry
from shmcam.library.sidecar import Owner, write_description

STARTED = 1_700_000_000_000_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


def make_settings(folder: Path, *overrides: str) -> Settings:
    config = folder / "config.toml"
    config.write_text("[library]\nfree_reserve_mb = 1\n")
    return Settings.load(config, overrides, environ={})


@pytest.fixture
def catalogue(settings: Settings) -> Iterator[Catalogue]:
    with Catalogue.of(settings) as one:
        yield one


@pytest.fixture
def saved(settings: Settings, catalogue: Catalogue) -> Callable[..., Entry]:
    """Put a file of some bytes on disk and into the catalogue."""

    def save(name: str = "", size: int = 1000, **values: object) -> Entry:
        number = len(catalogue.find())
        return catalogue.add(on_disk(settings, name or f"clip{number}.mp4", size, number, **values))

    return save


def saved_before_a_kill(settings: Settings, name: str, size: int = 1000, number: int = 0, **values: object) -> Entry:
    """Puts a file of ours on disk whose process died before it wrote the row."""
    entry = on_disk(settings, name, size, number, **values)
    write_description(entry, Owner.of(settings.paths.library))
    return entry


def on_disk(settings: Settings, name: str, size: int = 1000, number: int = 0, **values: object) -> Entry:
    kind = str(values.setdefault("kind", "clip"))
    folder = settings.paths.recordings if kind == "clip" else settings.paths.captures
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([number % 251]) * size)
    values = {"camera": "cam0", "started_utc_ns": STARTED + number * 10**9, **values}
    return Entry(path=path, **values)  # type: ignore[arg-type]
