"""Films that were left unfinished: whose they are, and whether somebody still writes them."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from msgspec.structs import replace

from exporter.films import build
from exporter.films.film import Film, adopt_film
from exporter.films.running_film import RunningFilm
from shm_ring import FrameMeta
from shm_ring.formats import geometry
from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry, NoRoom
from shmcam.library.disks import disk_space
from shmcam.video import fmp4_reader
from shmcam.video.disk_file import DiskFile
from tests.mounts import closed

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
            RunningFilm(camera, lambda: settings, catalogue).adopt_leftovers()
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


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_a_labelled_leftover_is_of_the_camera_that_it_holds(settings, adopt, frames):
    """A killed `timelapse build label=trial` was taken for one of the camera cam0_trial, and lay there for ever."""
    film = begun(settings, "cam0", frames, f"timelapse_cam0_trial_{STAMP}.mp4")
    film._file.close()  # as a kill leaves it
    assert adopt("cam0") == ([film.path.name] if frames == 4 else []) and not film.part.exists()


def test_a_label_may_make_the_name_that_of_another_camera(tmp_path):
    (tmp_path / "config.toml").write_text("[cameras.front]\n[cameras.front_door]\n[library]\nfree_reserve_mb = 0\n")
    settings = Settings.load(tmp_path / "config.toml", environ={})
    settings.paths.captures.mkdir()
    film = begun(settings, "front", 4, f"timelapse_front_door_{STAMP}.mp4")
    film._file.close()
    with Catalogue.of(settings) as catalogue:
        for camera in settings.cameras[::-1]:
            RunningFilm(camera, lambda: settings, catalogue).adopt_leftovers()
        assert [(entry.camera, entry.path) for entry in catalogue.find()] == [("front", film.path)]


@pytest.mark.parametrize("frames", [0, 1, 30])
@pytest.mark.parametrize("label", ["", "day_"])
def test_a_film_that_is_being_written_is_not_adopted(settings, adopt, frames, label):
    """By `timelapse build`, in a thread or a process of its own, or by a second exporter."""
    film = begun(settings, "cam0", frames, f"timelapse_cam0_{label}{STAMP}.mp4")
    assert adopt("cam0") == [] and film.part.exists()
    film.add(np.full(LAYOUT.payload_bytes, 90, np.uint8))
    assert film.close() == film.path and film.path.exists()


def test_a_film_is_built_while_the_exporter_looks_for_leftovers(settings, adopt):
    with Catalogue.of(settings) as catalogue:
        for number in range(30):
            path = settings.paths.captures / f"p{number}.png"
            cv2.imwrite(str(path), np.full((48, 64, 3), number, np.uint8))
            catalogue.add(Entry(kind="picture", camera="cam0", path=path, started_utc_ns=number * 10**9))
        pictures = build.find_pictures(catalogue, ["cam0"], "", "", 10**18)
        made = build.build(settings, catalogue, pictures, fps=5, progress=lambda _done, _total: adopt("cam0"))
        assert made.frames == 30 and [entry.id for entry in catalogue.find(kinds=["timelapse"])] == [made.id]


def test_a_film_never_costs_the_pictures_it_is_made_of(settings, monkeypatch):
    """On a disk that is nearly full the oldest files make room, but not those that are being filmed."""
    with Catalogue.of(settings) as catalogue:
        entries = []
        for number in range(120):
            path = settings.paths.captures / f"p{number}.png"
            cv2.imwrite(str(path), np.full((48, 64, 3), number, np.uint8))
            entry = Entry(kind="picture", camera="cam0", path=path, started_utc_ns=number * 10**9, trigger="auto")
            entries.append(catalogue.add(entry))
        other = catalogue.add(replace(entries[0], id=0, kind="stack", path=path.with_suffix(".npy"), bytes=60_000_000))
        other.path.write_bytes(b"x")
        looks = []

        def disk(_folder: object) -> SimpleNamespace:
            looks.append(None)
            free = 20_000_000 if len(looks) < 3 else 0
            return SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=10**9, f_files=0, f_favail=0)

        monkeypatch.setattr(disk_space.os, "statvfs", disk)
        pictures = build.find_pictures(catalogue, ["cam0"], "", "", 10**18)
        assert len(pictures) == 120
        with pytest.raises(NoRoom, match="MB short"):
            build.build(settings, catalogue, pictures, fps=5)
        assert len(looks) >= 3 and all(entry.path.exists() for entry in entries) and not other.path.exists()
        assert not list(settings.paths.captures.glob("*.part")) and not catalogue.find(kinds=["timelapse"])


def test_films_beside_a_library_that_cannot_be_written_are_made_once_and_get_their_rows_later(settings):
    folder = settings.paths.captures
    with Catalogue.of(settings) as catalogue:
        path = folder / "a.png"
        cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
        picture = catalogue.add(Entry(kind="picture", camera="cam0", path=path, started_utc_ns=0))
        begun(settings, "cam0", 3)._file.close()  # as a kill leaves it
        running = RunningFilm("cam0", lambda: settings, catalogue, "startrails")
        with closed():
            RunningFilm("cam0", lambda: settings, catalogue).adopt_leftovers()
            running.add(np.zeros(LAYOUT.payload_bytes, np.uint8), LAYOUT, FrameMeta(7, 10**9, 10**18))
            built, trails = build.build(settings, catalogue, [picture], fps=5, label="trial"), running.close()
        films = set(folder.glob("*.mp4"))
        assert (built.id, trails.id) == (0, 0) and {built.path, trails.path} < films and len(films) == 3
        assert all(one.bytes == one.path.stat().st_size for one in (built, trails)) and catalogue.missed.is_set()
        for path in films:
            os.utime(path, (0, 0))  # nobody writes them any more
        catalogue.reconcile()
        kinds = {entry.path: entry.kind for entry in catalogue.find(kinds=["timelapse", "startrails"])}
        assert kinds.keys() == films and kinds[built.path] == "timelapse" and kinds[trails.path] == "startrails"


def test_a_film_begins_anew_when_its_empty_file_was_taken_for_a_leftover(settings, monkeypatch):
    """The other process may look between our open and our lock."""
    lock, part = fcntl.flock, settings.paths.captures / f"timelapse_cam0_{STAMP}.mp4.part"

    def late(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        assert adopt_film(part, "cam0") is None and not part.exists()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    film = begun(settings, "cam0", 2)
    assert part.exists() and film.close() == film.path


@pytest.mark.parametrize("at", [*range(3, 9), 20, 31, 32, 33])
@pytest.mark.parametrize("torn", [False, True])
def test_a_disk_that_fills_up_costs_no_frame_that_was_written(settings, adopt, monkeypatch, at, torn):
    """At any write, also at those of the index when the film ends; the next film adopts what is left of this one."""
    write, writes, film, whole = DiskFile._write_some, [], begun(settings, "cam0", 1), 0

    def fills_up(self: DiskFile, descriptor: int, data: memoryview, offset: int) -> int:
        writes.append(None)
        if len(writes) < at:
            return write(self, descriptor, data, offset)
        if torn:
            write(self, descriptor, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(DiskFile, "_write_some", fills_up)
    with pytest.raises(OSError, match="No space"), film:
        for number in range(1, 31):
            film.add(np.full(LAYOUT.payload_bytes, 60 + number, np.uint8))
            whole = fmp4_reader.measure_extent(film.part).frames
    assert film.frames > 1 and fmp4_reader.measure_extent(film.part).frames >= whole > 0
    size, leftover = film.part.stat().st_size, fmp4_reader.measure_extent(film.part)
    assert size == leftover.bytes, "nothing torn is left"
    monkeypatch.undo()
    assert adopt("cam0") == [film.path.name]
    with av.open(str(film.path)) as played:
        assert sum(1 for _ in played.decode(video=0)) == leftover.frames


@pytest.mark.parametrize("tail", ["truncated", "zeroed", "a hole"])
def test_what_a_power_cut_tore_is_cut_off_and_the_rest_is_a_film(settings, adopt, tail):
    """Frames since the last sync may be there in any part; the film ends before the first that is not whole."""
    film = begun(settings, "cam0", 40)
    film._file.close()
    data = film.part.read_bytes()
    with film.part.open("rb") as file:
        ends = [start + size for kind, start, size in fmp4_reader.read_boxes(file, 0, len(data)) if kind == b"mdat"]
    torn = {
        "truncated": data[: ends[29] + 40],  # inside the next one's header, where FFmpeg refuses to open it
        "zeroed": data[: ends[30] - 4] + bytes(5000),
        "a hole": data[: ends[30] - 4] + bytes(4) + data[ends[30] :],
    }[tail]
    film.part.write_bytes(torn)
    assert adopt("cam0") == [film.path.name]
    with av.open(str(film.path)) as played:
        assert sum(1 for _ in played.decode(video=0)) == 30
    with Catalogue.of(settings) as catalogue:
        assert [entry.frames for entry in catalogue.find()] == [30]


def test_pictures_of_other_sizes_are_scaled_and_unreadable_ones_refused_by_name(settings):
    """Pictures of another size were dropped without a word, and the film was shorter than the night."""
    shapes = [(48, 64), (96, 128), (24, 32), (64, 48), (49, 65)] * 4
    folder, refused = settings.paths.captures, []
    with Catalogue.of(settings) as catalogue:
        for number, shape in enumerate(shapes):
            path = folder / f"p{number}.{('png', 'jpg', 'tiff')[number % 3]}"
            cv2.imwrite(str(path), np.full((*shape, 3) if number % 2 else shape, 200, np.uint8))
            catalogue.add(
                Entry(kind="picture", camera="cam0", path=path, started_utc_ns=number * 10**9, first_frame=number)
            )
        for number, (name, content) in enumerate((("torn.jpg", b"\xff\xd8x"), ("only.npy", b"x"), ("p19.npy", b"x"))):
            (folder / name).write_bytes(content)
            seconds = 19 if name.startswith("p19") else 30 + number
            catalogue.add(
                Entry(
                    kind="picture",
                    camera="cam0",
                    path=folder / name,
                    started_utc_ns=seconds * 10**9,
                    first_frame=seconds,
                )
            )
        pictures = build.find_pictures(catalogue, ["cam0"], "", "", 10**18)
        film = build.build(
            settings, catalogue, pictures, fps=5, refuse=lambda path, reason: refused.append((path, reason))
        )
    assert film.frames == 20 and film.drops == 2 and film.duration_s == 19
    assert build.format_refused(refused) == "left out 2: torn.jpg: is damaged; only.npy: npy cannot be filmed"
    with av.open(str(film.path)) as container:
        stream = container.streams.video[0]
        shown = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        assert (stream.width, stream.height) == (64, 48)
        assert float(container.duration / av.time_base) == pytest.approx(4.0, abs=0.01)
    assert len(shown) == 20
    for number, picture in enumerate(shown):
        assert picture[24, 32] > 150  # every one is there
        assert (picture[24, 4] < 60) == (shapes[number] == (64, 48))  # bars beside an upright one only
