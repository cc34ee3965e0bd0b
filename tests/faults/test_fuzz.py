"""Foreign bytes in every parser: refused in the words that its caller expects, never another error, never a hang.

Each parser has examples in corpus/<parser>/. Hypothesis damages them; what breaks a parser is written there as
`crash-…` and is tried again on every run from then on. SHMCAM_FUZZ: how many examples for each (`make faults`: 20,000).
"""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capture.sources.mjpeg.picture_scanner import PictureScanner, boundary_of
from capture.sources.replay import geometry_of, read_pixels, read_table, shot_of
from recorder.clips.clip_file import read_rows
from recorder.clips.recovery import read_closed
from recorder.resume import EventMarks, ResumeFile
from shm_ring import RingError, segment
from shm_ring.records import packets, scores
from shmcam.config.settings import Settings, SettingsError
from shmcam.control.codec import Decoder, Refused
from shmcam.control.messages import Save, Set
from shmcam.imaging import image_header, tiff
from shmcam.library import manifest, sidecar
from shmcam.network.http_auth import choose_challenge
from shmcam.video import annexb, fmp4_reader, growing_mp4
from streamer.http import request_body

CORPUS = Path(__file__).with_name("corpus")
EXAMPLES = int(os.environ.get("SHMCAM_FUZZ", "40"))


@dataclass(frozen=True)
class Parser:
    """What reads the bytes, and the errors that its callers catch."""

    read: Callable[[bytes, Path], object]
    errors: tuple[type[Exception], ...] = ()
    suffix: str = ".bin"


def of_file(read: Callable[[Path], object], name: str) -> Callable[[bytes, Path], object]:
    """A parser that wants a file of this name."""

    def call(data: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(path)

    return call


def read_messages(data: bytes, _folder: Path) -> None:
    for step in (len(data) or 1, 1, 7):
        decoder = Decoder(("cam0",))
        for at in range(0, len(data), step):
            if any(isinstance(item, Refused) and item.fatal for item in decoder.feed(data[at : at + step], 0.0)):
                break
        decoder.finish()


def read_body(data: bytes, _folder: Path) -> None:
    for kind in (Save, Set, dict[str, str]):
        with suppress(ValueError, msgspec.DecodeError, RecursionError):
            request_body._convert(request_body._narrow_numbers(msgspec.json.decode(data or b"{}")), kind)


def read_description(path: Path) -> object:
    owner = sidecar.Owner(("0123456789abcdef",))
    return sidecar.read(path, owner), sidecar.read_description(path)


def read_beside(data: bytes, folder: Path) -> object:
    picture = folder / "cam0_20260101_000000.npy"
    picture.write_bytes(b"x")
    picture.with_name(picture.name + ".json").write_bytes(data)
    return read_description(picture)


def read_archive(data: bytes, folder: Path) -> object:
    (folder / "manifest.json").write_bytes(data)
    owner = sidecar.Owner(("0123456789abcdef",))
    sidecar.is_archive(folder / "manifest.json")
    return sidecar.read(folder / "manifest.json", owner), manifest.read_items(folder), manifest.verify(folder)


def read_video(path: Path) -> object:
    with path.open("rb") as file:
        list(fmp4_reader.read_boxes(file, 0, path.stat().st_size))
    return growing_mp4.read_about(path), growing_mp4.read_summary(path), fmp4_reader.measure_extent(path)


def read_stream(data: bytes, _folder: Path) -> None:
    annexb.find_parameter_sets(data)
    annexb.to_avcc(data)
    list(packets.split_nal_units(data))
    packets.parameter_sets(data)


def read_multipart(data: bytes, _folder: Path) -> None:
    head, _, body = data.partition(b"\n")
    boundary = boundary_of(head.decode("latin-1"))
    choose_challenge([head.decode("latin-1")])
    for step in (len(body) or 1, 3, 1000):
        scanner = PictureScanner(boundary)
        for at in range(0, len(body), step):
            list(scanner.feed(body[at : at + step], 0))
        list(scanner.end())


def read_header(data: bytes, folder: Path) -> None:
    path = folder / "segment"
    path.write_bytes(data.ljust(8192, b"\0"))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        segment.read_header(descriptor, "/fuzz.cam0.main")
    finally:
        os.close(descriptor)


def read_dump(path: Path) -> None:
    for row in read_table(path):
        shot_of(row)
        geometry_of(row)


def read_state(path: Path) -> None:
    ResumeFile(path).read(1, (1, 1))
    EventMarks(path)


def load_config(path: Path) -> object:
    return Settings.load(path, environ={})


def read_score(data: bytes, _folder: Path) -> object:
    return scores.parse(np.frombuffer(data, np.uint8))


DUMP_ERRORS = (OSError, ValueError, KeyError, TypeError, EOFError, csv.Error)
CLIP = "cam0_64x48_5.0fps_20260101_000000.mp4"

PARSERS = {
    "messages": Parser(read_messages),
    "bodies": Parser(read_body),
    "config": Parser(of_file(load_config, "config.toml"), (SettingsError,)),
    "sidecar": Parser(read_beside),
    "manifest": Parser(read_archive, (ValueError,)),
    "mp4": Parser(of_file(read_video, "cam0_20260101_000000.mp4"), (OSError,)),
    "clip": Parser(of_file(lambda path: read_closed(path, "cam0"), CLIP), (OSError,)),
    "annexb": Parser(read_stream),
    "picture": Parser(of_file(read_description, "cam0_20260101_000000.jpg"), (OSError,)),
    "png": Parser(of_file(read_description, "cam0_20260101_000000.png"), (OSError,)),
    "tiff": Parser(lambda data, _: (tiff.decode_tags(data), image_header.count_pixels(data)), (ValueError,)),
    "multipart": Parser(read_multipart),
    "ring": Parser(read_header, (RingError,)),
    "score": Parser(read_score, (ValueError,)),
    "dump": Parser(of_file(read_dump, "frames.csv"), DUMP_ERRORS),
    "dump_pixels": Parser(of_file(read_pixels, "f1.npy"), DUMP_ERRORS),
    "state": Parser(of_file(read_state, "cam0.marks.json")),
    "timing": Parser(of_file(read_rows, "cam0_frame_timing.csv"), (OSError,)),
}


def corpus_of(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir()) if (CORPUS / name).is_dir() else []


def try_out(name: str, data: bytes) -> None:
    parser = PARSERS[name]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        try:
            parser.read(data, Path(folder))
        except parser.errors:
            return
        except Exception:
            digest = hashlib.sha256(data).hexdigest()[:12]
            (CORPUS / name).mkdir(parents=True, exist_ok=True)
            (CORPUS / name / f"crash-{digest}").write_bytes(data)
            raise


NUMBERS = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1")


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """An example with some damage, or any bytes."""
    examples = [path.read_bytes() for path in corpus_of(name)]
    data = bytearray(draw(st.sampled_from(examples)) if examples else b"")
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(("flip", "cut", "insert", "repeat", "number", "splice")))
        if how == "flip" and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del data[at : at + draw(st.integers(0, 64))]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 40))
        elif how == "number":
            data[at : at + 4] = draw(st.sampled_from(NUMBERS))
        elif how == "splice" and examples:
            other = draw(st.sampled_from(examples))
            data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


@pytest.mark.parametrize("name", PARSERS)
def test_each_parser_has_examples_and_reads_them(name: str) -> None:
    assert corpus_of(name), name
    for path in corpus_of(name):
        try_out(name, path.read_bytes())


def _fuzz(name: str) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged(name))
    def run(data: bytes) -> None:
        try_out(name, data)

    run()


@pytest.mark.parametrize("name", [name for name in PARSERS if name not in ("messages", "bodies")])
@pytest.mark.timeout(3000)
def test_files_of_any_bytes(name: str) -> None:
    _fuzz(name)


@pytest.mark.timeout(3000)
def test_messages_of_any_bytes() -> None:
    _fuzz("messages")


@pytest.mark.timeout(3000)
def test_bodies_of_any_bytes() -> None:
    _fuzz("bodies")
