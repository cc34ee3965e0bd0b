"""The day after an upgrade: configuration, library and files that release 0.1 (8e06d46) wrote, read by this one."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from shmcam.library.retention import clean

RELEASE = Path(__file__).with_name("release_0_1")
"""Made by its `shmcam run`: a clip by hand, two pictures of pastStack, their rows; config.toml as it was shipped."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RELEASE, tmp_path / "shmcam"))


def settings_of(folder: Path, *overrides: str) -> Settings:
    return Settings.load(folder / "config.toml", overrides, environ={})


def test_the_shipped_configuration_is_read_as_it_is(folder):
    assert settings_of(folder).value("camera.width") == 1280


def test_rows_keep_their_numbers_and_nothing_is_missing(folder):
    with closing(Catalogue.of(settings_of(folder))) as catalogue:
        assert catalogue.check() == []
        assert [(entry.id, entry.kind, entry.frames) for entry in catalogue.find()][::-1] == [
            (1, "clip", 73), (2, "picture", 1), (3, "picture", 1),
        ]  # fmt: skip


def test_a_library_lost_on_the_way_comes_back_from_the_files(folder):
    with closing(sqlite3.connect(folder / "library.sqlite3")) as database:
        columns = "kind, camera, path, started_utc_ns, frames, drops, trigger, label, protected"
        before = database.execute(f"SELECT {columns} FROM entries ORDER BY path").fetchall()
    (folder / "library.sqlite3").unlink()
    with closing(Catalogue.of(settings_of(folder))) as catalogue:
        catalogue.rebuild()
    with closing(sqlite3.connect(folder / "library.sqlite3")) as database:
        assert database.execute(f"SELECT {columns} FROM entries ORDER BY path").fetchall() == before


def test_what_the_release_made_counts_as_ours_when_a_limit_is_passed(folder):
    """Its descriptions bear no id of the installation; a disk full of them would never get room again."""
    settings = settings_of(folder, "library.pictures_max_count=1")
    with closing(Catalogue.of(settings)) as catalogue:
        assert [entry.path.name for entry in clean(settings, catalogue)] == ["20261130_022447_f65.npy"]
        assert [entry.id for entry in catalogue.find()] == [3, 1]
    assert len(list((folder / "captures").iterdir())) == 2
