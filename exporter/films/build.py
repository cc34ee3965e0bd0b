"""`shmcam timelapse`: builds a film of saved pictures, with a progress bar."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from exporter.films.film import FRAME_BYTES, ROOM_FRAMES, Film
from exporter.pictures import names
from exporter.settings import ExportSettings
from shm_ring.formats import geometry
from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError
from shmcam.library import Catalogue, Entry, LibraryError, retention
from shmcam.library.entry import to_row
from shmcam.library.errors import NothingThere
from shmcam.library.time_parsing import parse_instant_ns
from shmcam.runtime.atomic_files import find_unused_path
from shmcam.runtime.clock import now_ns, to_utc_ns
from shmcam.runtime.progress import Progress, make_progress_bar
from shmcam.runtime.startup import find_config

NAMED = ("camera", "since", "from", "until", "to", "fps", "label")
"""Options that may be written `name=value`, too."""


def build(
    settings: Settings,
    catalogue: Catalogue,
    pictures: Sequence[Entry],
    *,
    fps: float,
    label: str = "",
    progress: Progress = lambda _done, _total: None,
) -> Entry:
    """Makes a film of saved pictures (jpg, png, tiff), one frame each; pictures of another size are left out.

    Memory does not grow with their number. Raises: NothingThere where there are none; NoRoom, OSError, sqlite3.Error.
    """
    entries = [entry for entry in pictures if entry.path.suffix in (".jpg", ".png", ".tiff")]
    first = next((picture for entry in entries if (picture := _read_picture(entry.path)) is not None), None)
    if first is None:
        raise NothingThere("timelapse: no pictures of that span in the library")
    own = settings.table(ExportSettings)
    folder = settings.paths.captures
    paths, need_bytes = {entry.path for entry in entries}, min(len(entries), ROOM_FRAMES) * FRAME_BYTES

    def make_room() -> None:
        retention.make_room(settings, catalogue, need_bytes, folder, kind="timelapse", writing=paths)

    make_room()
    layout = geometry("bgr24", first.shape[1], first.shape[0])
    camera = entries[0].camera
    path = find_unused_path(folder / names.name_film("timelapse", camera, label, entries[0].started_utc_ns, "mp4"))
    film = Film(path, layout, fps=fps, crf=own.timelapse_crf, about=entries[0].to_description() | {"kind": "timelapse"})
    try:
        for number, entry in enumerate(entries):
            progress(number, len(entries))
            if number % ROOM_FRAMES == ROOM_FRAMES - 1:
                make_room()
            picture = _read_picture(entry.path)
            if picture is not None and picture.shape == first.shape:
                film.add(picture.reshape(-1))
        closed_path = film.close()
    except BaseException:
        film.part.unlink(missing_ok=True)  # unlike a running film, this one can be made again
        film.abandon()  # only now, with the lock: no other process adopts it in between
        raise
    progress(len(entries), len(entries))
    if closed_path is None:
        raise NothingThere("timelapse: no picture could be read")
    last = entries[-1]
    return catalogue.add_when_writable(
        Entry(
            kind="timelapse",
            camera=camera,
            path=closed_path,
            started_utc_ns=entries[0].started_utc_ns,
            duration_s=(last.started_utc_ns - entries[0].started_utc_ns) / 1e9,
            first_frame=entries[0].first_frame,
            last_frame=last.last_frame,
            frames=film.frames,
            trigger="timelapse",
            label=label,
        ),
    )


def camera_of(settings: Settings, name: str) -> str:
    """Returns the camera of this name, or the first. Raises: ValueError where there is none of this name."""
    if name and name not in settings.cameras:
        raise ValueError(f"no camera {name}; known: {', '.join(settings.cameras)}")
    return name or settings.cameras[0]


def find_pictures(catalogue: Catalogue, cameras: Iterable[str], since: str, until: str, now_utc_ns: int) -> list[Entry]:
    """Returns saved pictures of a span in order of time, one per frame. Raises: ValueError for an unknown time."""
    entries = catalogue.find(
        kinds=["picture"],
        cameras=list(cameras),
        since_utc_ns=parse_instant_ns(since, now_utc_ns),
        until_utc_ns=parse_instant_ns(until, now_utc_ns),
        newest_first=False,
    )
    by_frame = {(entry.camera, entry.first_frame, entry.started_utc_ns): entry for entry in reversed(entries)}
    return sorted(by_frame.values(), key=lambda entry: entry.started_utc_ns)


def main(argv: Sequence[str] | None = None) -> int:
    """`shmcam timelapse`: make a film of saved pictures, with a progress bar. Returns: 0, 1, or 78."""
    options = _parse_options(sys.argv[1:] if argv is None else argv)
    try:
        settings = Settings.load(options.config, options.set)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    try:
        with Catalogue.of(settings) as catalogue:
            camera = camera_of(settings, options.camera or options.place)
            pictures = find_pictures(catalogue, [camera], options.since, options.until, to_utc_ns(now_ns()))
            bar = make_progress_bar("timelapse") if sys.stderr.isatty() else _ignore_progress
            film = build(
                settings, catalogue, pictures, fps=options.fps, label=names.check_label(options.label), progress=bar
            )
    except (LibraryError, ValueError, OSError, sqlite3.Error, av.FFmpegError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(
        json.dumps(to_row(film)) if options.json else f"{film.path} ({film.frames} frames, {film.bytes / 1e6:.1f} MB)"
    )
    return 0


def _parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line, also in the form of the socket: `timelapse build cam0 since=24h`, without `build`."""
    parser = argparse.ArgumentParser(prog="shmcam timelapse", description=main.__doc__)
    parser.add_argument("place", nargs="?", default="", metavar="CAMERA", help="which camera (default: the first)")
    parser.add_argument(
        "--config", type=Path, default=find_config(), metavar="FILE", help="config.toml (default: %(default)s)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="override one key")
    parser.add_argument("--camera", default="", metavar="CAMERA", help="the same as a bare word")
    parser.add_argument("--since", "--from", default="", metavar="TIME", help="ISO 8601 time or an age such as 24h")
    parser.add_argument("--until", "--to", default="", metavar="TIME", help="the same")
    parser.add_argument(
        "--fps", type=number, default=25.0, metavar="FPS", help="frames a second (default: %(default)s)"
    )
    parser.add_argument("--label", default="", metavar="LABEL", help="for the file name")
    parser.add_argument("--json", action="store_true", help="answer for programs")
    options = parser.parse_args(
        [f"--{word}" if "=" in word and word.partition("=")[0] in NAMED else word for word in argv]
    )
    if not 0 < options.fps <= 120:
        parser.error(f"--fps {options.fps:g}: must be above 0 and at most 120")
    return options


def number(text: str) -> float:
    """Reads the value of an option; argparse puts this function's name into its message."""
    return float(text)


def _ignore_progress(_done: int, _total: int) -> None:
    """Shows no progress: the output is no terminal."""


def _read_picture(path: Path) -> np.typing.NDArray[np.uint8] | None:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return None if picture is None else np.asarray(picture, np.uint8)


if __name__ == "__main__":
    sys.exit(main())
