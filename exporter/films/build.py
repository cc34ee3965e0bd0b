"""`shmcam timelapse`: builds a film of saved pictures, with a progress bar."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from exporter.films.film import FRAME_BYTES, ROOM_FRAMES, Film
from exporter.settings import ExportSettings
from shm_ring.formats import geometry
from shmcam.config.errors import UnknownCamera
from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError
from shmcam.library import Catalogue, Entry, LibraryError, file_names, retention
from shmcam.library.entry import to_row
from shmcam.library.errors import NothingThere
from shmcam.library.sidecar import INSTALLATION
from shmcam.library.time_parsing import parse_instant_ns
from shmcam.runtime.atomic_files import find_unused_path, read_state
from shmcam.runtime.clock import now_ns, to_utc_ns
from shmcam.runtime.progress import Progress, make_progress_bar
from shmcam.runtime.startup import end_with_error, find_config

log = logging.getLogger(__name__)

Pixels = np.typing.NDArray[np.uint8]
READABLE = (".jpg", ".png", ".tiff")
PICTURE_BYTES_MAX = 1 << 30
"""A picture of 300 megapixels without compression."""
REFUSED_SHOWN = 10
"""The most pictures that one answer names."""
NAMED = ("camera", "since", "from", "until", "to", "fps", "label")
"""Options that may be written `name=value`, too."""


def log_refused(path: Path, reason: str) -> None:
    """Logs a picture that cannot be filmed."""
    log.warning("picture left out of the film path=%s reason=%s", path, reason)


def build(
    settings: Settings,
    catalogue: Catalogue,
    pictures: Sequence[Entry],
    *,
    fps: float,
    label: str = "",
    progress: Progress = lambda _done, _total: None,
    refuse: Callable[[Path, str], None] = log_refused,
) -> Entry:
    """Makes a film of saved pictures (jpg, png, tiff), one frame each, all of the size of the first.

    Another size is scaled to fit, with black bars where its shape differs. `refuse` is called with each picture that
    cannot be read and the reason. Memory does not grow with their number.

    Raises: NothingThere where there are none; NoRoom, OSError.
    """
    entries = list(pictures)
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
    name = file_names.name_film("timelapse", camera, label, entries[0].started_utc_ns)
    path = find_unused_path(folder / f"{name}.mp4")
    about = entries[0].to_description() | {"kind": "timelapse", INSTALLATION: catalogue.owner.id}
    film = Film(path, layout, fps=fps, crf=own.timelapse_crf, about=about)
    filmed: list[Entry] = []
    try:
        for number, entry in enumerate(entries):
            progress(number, len(entries))
            if number % ROOM_FRAMES == ROOM_FRAMES - 1:
                make_room()
            picture = _read_picture(entry.path)
            if picture is None:
                refuse(entry.path, _explain_unreadable(entry.path))
                continue
            film.add(fit_picture(picture, first.shape[1], first.shape[0]).reshape(-1))
            filmed.append(entry)
        closed_path = film.close()
    except BaseException:
        film.part.unlink(missing_ok=True)  # unlike a running film, this one can be made again
        film.abandon()  # only now, with the lock: no other process adopts it in between
        raise
    progress(len(entries), len(entries))
    if closed_path is None:
        raise NothingThere("timelapse: no picture could be read")
    begin, last = filmed[0], filmed[-1]
    return catalogue.add_when_writable(
        Entry(
            kind="timelapse",
            camera=camera,
            path=closed_path,
            started_utc_ns=begin.started_utc_ns,
            duration_s=(last.started_utc_ns - begin.started_utc_ns) / 1e9,
            first_frame=begin.first_frame,
            last_frame=last.last_frame,
            frames=film.frames,
            drops=len(entries) - len(filmed),
            trigger="timelapse",
            label=label,
        ),
    )


def fit_picture(picture: Pixels, width: int, height: int) -> Pixels:
    """Returns the picture in this size, its shape kept: black bars fill what is left."""
    if picture.shape[:2] == (height, width):
        return picture
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    result = np.zeros((height, width, 3), np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    result[top : top + size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=method)
    return result


def format_refused(refused: Sequence[tuple[Path, str]]) -> str:
    """Returns the pictures that were left out, by name; empty where there are none."""
    if not refused:
        return ""
    shown = "; ".join(f"{path.name}: {reason}" for path, reason in refused[:REFUSED_SHOWN])
    more = len(refused) - REFUSED_SHOWN
    return f"left out {len(refused)}: {shown}" + (f"; and {more} more" if more > 0 else "")


def camera_of(settings: Settings, name: str) -> str:
    """Returns the camera of this name, or the first. Raises: UnknownCamera."""
    if name and name not in settings.cameras:
        raise UnknownCamera(name, settings.cameras)
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
    # Of a frame saved in several formats one that can be read is taken, the first of them.
    entries.sort(key=lambda entry: entry.path.suffix in READABLE)
    by_frame = {(entry.camera, entry.first_frame, entry.started_utc_ns): entry for entry in entries}
    return sorted(by_frame.values(), key=lambda entry: entry.started_utc_ns)


def main(argv: Sequence[str] | None = None) -> int:
    """`shmcam timelapse`: make a film of saved pictures, with a progress bar. Returns: the exit code."""
    options = _parse_options(sys.argv[1:] if argv is None else argv)
    try:
        settings = Settings.load(options.config, options.set)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    refused: list[tuple[Path, str]] = []
    try:
        with Catalogue.of(settings) as catalogue:
            camera = camera_of(settings, options.camera or options.place)
            pictures = find_pictures(catalogue, [camera], options.since, options.until, to_utc_ns(now_ns()))
            bar = make_progress_bar("timelapse") if sys.stderr.isatty() else _ignore_progress
            film = build(
                settings,
                catalogue,
                pictures,
                fps=options.fps,
                label=file_names.check_label(options.label),
                progress=bar,
                refuse=lambda path, reason: refused.append((path, reason)),
            )
    except (LibraryError, ValueError, OSError, av.FFmpegError) as error:
        return end_with_error(error)
    if refused:
        print(format_refused(refused), file=sys.stderr)
    print(
        json.dumps(to_row(film)) if options.json else f"{film.path} ({film.frames} frames, {film.bytes / 1e6:.1f} MB)"
    )
    return 0


def _parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line, also in the form of the socket: `timelapse build cam0 since=24h`, without `build`."""
    parser = argparse.ArgumentParser(prog="shmcam timelapse", description="Make a film of saved pictures.")
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


def _explain_unreadable(path: Path) -> str:
    if path.suffix not in READABLE:
        return f"{path.suffix.removeprefix('.')} cannot be filmed"
    return "is damaged" if path.exists() else "is gone"


def _read_picture(path: Path) -> Pixels | None:
    if path.suffix not in READABLE:
        return None
    try:
        data = np.frombuffer(read_state(path, PICTURE_BYTES_MAX), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError:
        return None
    return None if picture is None else np.asarray(picture, np.uint8)


if __name__ == "__main__":
    sys.exit(main())
