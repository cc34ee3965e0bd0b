"""`shmcam dump-ring`: frames and metadata of a live ring, or of one left behind by a crash, to files."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shm_ring.errors import FrameDamaged, FrameOverwritten, RingError, RingMismatch
from shm_ring.frame import Frame
from shm_ring.layout import segment_name
from shm_ring.reader import RingReader

FORMATS = ("png", "jpg", "npy", "none")


def dump(reader: RingReader, folder: Path, file_format: str, last: int | None) -> tuple[int, int]:
    """Writes frames and `frames.csv` into `folder`. Returns: how many frames were written, how many were not whole.

    png and jpg hold the picture in colour, npy the payload as it lies in the ring (`frames.csv` says what it is).
    What is not a picture is written as f<frame id>_<sequence>.bin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = broken = 0
    rows: list[dict[str, object]] = []
    for row, frame in _frames(reader, last):
        if frame is None:
            broken += 1
            print(f"sequence {row['sequence']}: {row['problem']}", file=sys.stderr)
        else:
            try:
                row["file"] = _write(frame, folder, file_format)
                written += 1
            except RingMismatch as error:
                broken, row["problem"] = broken + 1, str(error)
        rows.append(row)
    _write_rows(folder / "frames.csv", rows)
    return written, broken


def _frames(reader: RingReader, last: int | None) -> Iterator[tuple[dict[str, object], Frame | None]]:
    """Yields a row for every slot, oldest first, with its frame where it is whole."""
    head = reader.head
    start = max(reader.first_sequence, head - (reader.slots if last is None else min(last, reader.slots)))
    for sequence in range(start, head):
        row: dict[str, object] = {"sequence": sequence}
        try:
            frame = reader.copy(sequence)
        except FrameDamaged as error:
            yield row | {"problem": str(error)}, None
            continue
        except FrameOverwritten:
            row["problem"] = "overwritten while it was read" if reader.writer_alive else "torn: its writer died in it"
            yield row, None
            continue
        row |= frame.meta._asdict()
        row |= {"published_ns": frame.published_ns, "used_bytes": frame.payload.size}
        try:
            geometry = frame.geometry
        except RingMismatch as error:
            yield row | {"problem": str(error)}, None
            continue
        if geometry is not None:
            row |= {name: getattr(geometry, name) for name in ("pixel_format", "width", "height")}
            row |= {name: getattr(geometry, name) for name in ("color_space", "color_range")}
            lists = ("strides", "offsets", "sample_aspect")
            row |= {name: " ".join(map(str, getattr(geometry, name))) for name in lists}
        yield row, frame


def _write(frame: Frame, folder: Path, file_format: str) -> str:
    """Writes one frame, whole or not at all. Returns: the file's name, empty for none."""
    if file_format == "none":
        return ""
    suffix = file_format if frame.geometry is not None else "bin"
    name = f"f{frame.frame_id:010d}.{suffix}"
    if suffix == "bin":  # one encoded frame may take several slots
        name = f"f{frame.frame_id:010d}_{frame.sequence}.bin"
    temporary = folder / f".{name}.part"
    if suffix in ("png", "jpg"):
        import cv2

        temporary.write_bytes(cv2.imencode(f".{suffix}", frame.bgr)[1].tobytes())
    elif suffix == "npy":
        with temporary.open("wb") as file:
            np.save(file, frame.payload)
    else:
        temporary.write_bytes(frame.payload.tobytes())
    temporary.rename(folder / name)
    return name


def _write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Writes the table; columns in the order in which they first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["sequence"]
    columns = [name for name in columns if name not in ("file", "problem")] + ["file", "problem"]
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(rows)


def number(text: str) -> int:
    """Reads the value of an option; argparse puts this function's name into its message."""
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Dumps a ring. Exit code 0, 1 when there is nothing to dump."""
    parser = argparse.ArgumentParser(prog="shmcam dump-ring", description=__doc__)
    parser.add_argument("ring", metavar="CAMERA", help="camera (cam0) or segment (/shmcam.cam0.main)")
    parser.add_argument("--stream", default="main", metavar="NAME", help="with a camera: which stream (default main)")
    parser.add_argument(
        "--prefix", default="shmcam", metavar="NAME", help="with a camera: [ring] prefix of config.toml"
    )
    parser.add_argument("--to", type=Path, default=Path("dump"), metavar="DIR", help="folder (default ./dump)")
    parser.add_argument("--format", choices=FORMATS, default="png", help="none: only frames.csv")
    parser.add_argument("--last", type=number, metavar="N", help="only the newest N frames")
    wanted = parser.parse_args(argv)
    if wanted.last is not None and wanted.last < 1:
        parser.error(f"--last {wanted.last}: must be 1 or more")
    name = wanted.ring
    if not name.startswith("/"):
        name = segment_name(wanted.prefix, wanted.ring, wanted.stream)
    try:
        with RingReader.open(name) as reader:
            written, broken = dump(reader, wanted.to, wanted.format, wanted.last)
    except (RingError, OSError) as error:  # or a folder that cannot be written
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(f"{name}: {written} frames written to {wanted.to}, {broken} not whole; see {wanted.to / 'frames.csv'}")
    return 0
