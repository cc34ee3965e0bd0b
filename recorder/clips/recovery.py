"""Adopts what a crash or a power cut left behind: growing files are cut to what is whole, renamed, and reported.

A file that holds no whole fragment is removed. The bytes alone tell what a video is, because every video says in its
metadata which camera, which frame and which instant it begins with.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from recorder.clips.clip import SUFFIXES, ClipOrder, ClipTotals
from recorder.clips.clip_file import MAX_TIMING_BYTES, read_last_frame, read_rows
from recorder.clips.writer_events import Closed
from recorder.resume import NOTHING, RESUME_WITHIN_S
from shmcam.library.file_names import TIMING, clip_camera_of, is_clip_of
from shmcam.library.sidecar import Owner, sidecar_path_of
from shmcam.runtime.atomic_files import PART, find_unused_path, is_regular, read_state, sweep, sync_folder
from shmcam.video.disk_file import hold
from shmcam.video.growing_mp4 import VideoSummary, read_summary, trim, truncate

log = logging.getLogger(__name__)


def find_leftovers(recordings: Path, camera: str, *, alone: bool) -> Iterator[Path]:
    """Yields the files that a recorder of this camera did not finish and no process writes any more."""
    for folder, _, names in os.walk(recordings):
        for name in sorted(names):
            path = Path(folder) / name
            if is_clip_of(name, camera) and name.endswith(PART) and is_regular(path) and not _is_written(path, alone):
                yield path


def _is_written(path: Path, alone: bool) -> bool:
    """Tells whether a process writes the file; also if it cannot be opened."""
    with suppress(OSError), hold(path, without_locks=alone) as is_free:
        return not is_free
    return True


def adopt_leftovers(
    recordings: Path, camera: str, owner: Owner | None = None, *, alone: bool = True, unproven_age_s: float = 0.0
) -> list[Closed]:
    """Adopts or removes every leftover of this camera; a file that is being written is left alone.

    `alone`: the camera's recorder has just begun, so no process can be writing, also where files cannot be locked.
    `owner`: clips of other installations, which may record into the same folder, are left alone, too.
    `unproven_age_s`: the age from which files are taken that do not tell whose they are: without a whole fragment, raw
    H.264, a CSV without its video. Returns: the adopted clips, oldest first.
    """
    _sweep(recordings)
    clips = []
    for path in list(find_leftovers(recordings, camera, alone=alone)):
        final = path.with_name(path.name.removesuffix(PART))
        if final.suffix not in SUFFIXES.values():
            continue  # a CSV goes with its video; those without follow below
        try:
            clip = _adopt(path, final, camera, owner, unproven_age_s)
        except OSError as error:
            log.warning("leftover stays path=%s reason=%s", path, error)
            continue
        if clip is not None:
            log.info("leftover adopted path=%s frames=%d", clip.path, clip.totals.frames)
            clips.append(clip)
    for path in list(find_leftovers(recordings, camera, alone=alone)):
        if path.name.endswith(TIMING + PART):
            _finish_lone_timing(path, unproven_age_s)
    return sorted(clips, key=lambda clip: clip.totals.first_ns)


def find_unfiled(recordings: Path, camera: str) -> list[Path]:
    """Returns closed videos that are not in the library yet: they lack the description beside them."""
    suffixes, unfiled = tuple(SUFFIXES.values()), []
    for folder, _, names in os.walk(recordings):
        present = set(names)
        unfiled += [
            Path(folder) / name
            for name in sorted(names)
            if is_clip_of(name, camera)
            and name.endswith(suffixes)
            and is_regular(Path(folder) / name)
            and sidecar_path_of(Path(name)).name not in present
        ]
    return unfiled


def find_removed_cameras(recordings: Path, cameras: Collection[str]) -> list[str]:
    """Returns the cameras that left clips to be adopted and are none of `cameras`: they were renamed or removed."""
    left = {clip_camera_of(name) for _, _, names in os.walk(recordings) for name in names if name.endswith(PART)}
    return sorted(left - {"", *cameras})


def read_closed_until(recordings: Path, camera: str) -> tuple[int, int]:
    """Returns time and id of the last frame of the newest closed clip, by its CSV; NOTHING: unknown, or long ago.

    A kill may come between the close of a clip and the note of it.
    """
    with suppress(OSError):
        csvs = (path for path in recordings.rglob(f"*{TIMING}") if is_clip_of(path.name, camera))
        newest = max(csvs, key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is not None:
            return read_last_frame(newest, time.time(), RESUME_WITHIN_S) or NOTHING
    return NOTHING


def read_closed(path: Path, camera: str, owner: Owner | None = None) -> Closed | None:
    """Returns what a closed video and its CSV tell by themselves; None: nothing plays, or not ours. Raises: OSError."""
    summary = read_summary(path)
    if summary is None or summary.frames == 0 or not _is_ours(path, summary, owner):
        return None
    csv = path.with_name(path.stem + TIMING)
    rows = read_rows(csv)[: summary.frames] if csv.exists() else []
    return _closed_of(camera, path, csv if csv.exists() else None, summary, rows)


def _is_ours(path: Path, summary: VideoSummary, owner: Owner | None) -> bool:
    """Tells whether this installation recorded it. Raw H.264 holds no description: there the name has to do."""
    if owner is None or ".h264" in path.suffixes:
        return True
    return "camera" in summary.about and owner.is_named(summary.about)


def _sweep(recordings: Path) -> None:
    """Removes half-written descriptions and copies of a killed process: half of a copied video may be gigabytes."""
    for folder, _, _ in os.walk(recordings):
        with suppress(OSError):  # a folder that goes, or a disk that is going, meanwhile
            for path in sweep(Path(folder)):
                log.info("leftover removed path=%s reason=half written", path)


def _is_younger(path: Path, age_s: float) -> bool:
    """Tells whether a file was changed in these last seconds; also if its time is yet to come. Raises: OSError."""
    return age_s > 0 and time.time() - path.stat().st_mtime < age_s


def _adopt(path: Path, final: Path, camera: str, owner: Owner | None, unproven_age_s: float) -> Closed | None:
    summary = read_summary(path)
    if (summary is None or ".h264" in path.suffixes) and _is_younger(path, unproven_age_s):
        log.info("leftover stays path=%s reason=does not tell whose it is", path)
        return None
    if summary is not None and not _is_ours(path, summary, owner):
        log.info("leftover stays path=%s reason=not of this installation", path)
        return None
    growing_csv = final.with_name(final.stem + TIMING + PART)
    if summary is None or summary.frames == 0:
        log.info("leftover removed path=%s reason=no whole fragment bytes=%d", path, path.stat().st_size)
        path.unlink()
        with suppress(FileNotFoundError):
            growing_csv.unlink()
        return None
    trim(path, summary)
    target = find_unused_path(final)
    path.rename(target)
    csv = target.with_name(target.stem + TIMING)
    rows = _adopt_timing(growing_csv, csv, summary.frames)
    sync_folder(target.parent)
    return _closed_of(camera, target, csv if csv.exists() else None, summary, rows)


def _adopt_timing(growing: Path, final: Path, frames: int) -> list[tuple[int, int, int]]:
    """Gives the CSV its name, without lines whose frame did not reach the disk. Returns: its rows."""
    if not growing.exists():
        return read_rows(final)[:frames] if final.exists() else []
    rows = read_rows(growing)[:frames]
    if not rows:  # nothing of it reached the disk
        growing.unlink()
        return []
    lines = read_state(growing, MAX_TIMING_BYTES).split(b"\n")[: len(rows) + 1]
    truncate(growing, sum(len(line) + 1 for line in lines))
    growing.rename(final)
    return rows


def _finish_lone_timing(path: Path, unproven_age_s: float) -> None:
    """Gives a CSV its name, too, if its video was renamed just before the kill; removes one without a video.

    That of a video that stays, because it is not ours, stays with it.
    """
    final = path.with_name(path.name.removesuffix(PART))
    stem = final.name.removesuffix(TIMING)
    with suppress(OSError):
        if _is_younger(path, unproven_age_s) or any(
            final.with_name(stem + suffix + PART).exists() for suffix in SUFFIXES.values()
        ):
            return
        if any(final.with_name(stem + suffix).exists() for suffix in SUFFIXES.values()):
            path.rename(final)
        else:
            path.unlink()


def _closed_of(
    camera: str, path: Path, csv: Path | None, summary: VideoSummary, rows: list[tuple[int, int, int]]
) -> Closed:
    about = summary.about
    kind = about.get("kind") if about.get("kind") in ("session", "rolling", "event") else "session"
    first_ns = _number_in(about, "captured_ns", 0)
    utc_ns = _number_in(about, "captured_utc_ns", 0) or path.stat().st_mtime_ns
    order = ClipOrder(
        number=-1,
        kind=kind,  # type: ignore[arg-type]
        trigger=str(about.get("trigger", "recovered"))[:32],
        start_ns=first_ns,
        utc_ns=utc_ns,
        label=str(about.get("label", ""))[:32],
        protect=about.get("protect") is True,
    )
    first_frame = _number_in(about, "first_frame", -1)
    totals = ClipTotals(
        frames=summary.frames,
        first_frame=first_frame,
        last_frame=rows[-1][0] if len(rows) == summary.frames else first_frame + summary.frames - 1,
        first_ns=first_ns,
        last_ns=first_ns + summary.last_pts_us * 1000,
        hardware_drops=sum(dropped for _, _, dropped in rows),
        lost=0,
        bytes=path.stat().st_size,
    )
    return Closed(order, path, csv, camera, utc_ns, totals, "found after a crash", intact=False)


def _number_in(about: dict[str, Any], key: str, unknown: int) -> int:
    """Returns a number that a video says of itself, if it can be true: 63 bits."""
    value = about.get(key)
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else unknown
