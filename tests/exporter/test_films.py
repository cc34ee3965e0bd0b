"""Films that were left unfinished: whose they are, and whether somebody still writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from exporter.film import Film
from exporter.running_film import RunningFilm
from imaging.formats import geometry
from library import Catalogue
from service.settings import Settings

LAYOUT = geometry("yuv420p", 64, 48)
STAMP = "20260101_000000"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "config.toml").write_text("[library]\nfree_reserve_mb = 0\n")
    one = Settings.load(tmp_path / "config.toml", environ={})
    one.paths.captures.mkdir(parents=True)
    return one


@pytest.fixture
def adopt(settings: Settings) -> Iterator[Callable[[str], list[str]]]:
    with Catalogue.of(settings) as catalogue:

        def run(camera: str) -> list[str]:
            RunningFilm(camera, lambda: settings, catalogue).adopt()
            return [entry.path.name for entry in catalogue.find(kinds=["timelapse"])]

        yield run


def begun(settings: Settings, camera: str, frames: int, name: str = "") -> Film:
    path = settings.paths.captures / (name or f"timelapse_{camera}_{STAMP}.mp4")
    about = {"kind": "timelapse", "camera": camera, "started_utc_ns": 0}
    film = Film(path, LAYOUT, fps=10, crf=28, about=about)
    for number in range(frames):
        film.add(np.full(LAYOUT.payload_bytes, 60 + number, np.uint8))
    return film


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_a_leftover_of_a_camera_whose_name_begins_alike_is_left_alone(settings, adopt, frames):
    """Before the first fragment a film does not say whose it is: only its name does."""
    film = begun(settings, "front_door", frames)
    film._file.close()  # as a kill leaves it
    size = film.part.stat().st_size
    assert adopt("front") == [] and film.part.stat().st_size == size
    assert adopt("front_door") == ([film.path.name] if frames == 4 else []) and not film.part.exists()
