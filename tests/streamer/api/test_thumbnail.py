"""Thumbnails: what is too large for a board of 512 MB is refused by its header, before it is decoded."""

import struct

import cv2
import numpy as np
import pytest

from shmcam.imaging.image_header import count_pixels
from streamer.api import thumbnails

MEDIA = {"jpg": "image/jpeg", "png": "image/png", "tiff": "image/tiff"}


def file_of(ending: str, depth: type = np.uint8) -> bytes:
    return cv2.imencode(f".{ending}", np.full((120, 400, 3), 90, depth))[1].tobytes()


def tiff_of(order: str, kind: str, width: int, height: int) -> bytes:
    """A header alone, as other programs write it."""
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    number, layout = {"short": (3, "HHIHxx"), "long": (4, "HHII")}[kind]
    entries = b"".join(struct.pack(order + layout, tag, number, 1, n) for tag, n in ((256, width), (257, height)))
    return mark + struct.pack(order + "IH", 8, 2) + entries + bytes(4)


@pytest.mark.parametrize("ending", MEDIA)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_pixels_are_read_from_the_header(ending, depth):
    assert count_pixels(file_of(ending, np.uint8 if ending == "jpg" else depth)) == 48_000


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["short", "long"])
def test_every_kind_of_tiff_is_understood(order, kind):
    assert count_pixels(tiff_of(order, kind, 60_000, 50_000)) == 3_000_000_000


@pytest.mark.parametrize("ending", MEDIA)
def test_a_header_cut_anywhere_is_harmless(ending):
    whole = file_of(ending)
    assert {count_pixels(whole[:cut]) for cut in range(0, len(whole), 7)} <= {None, 48_000}


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"II*\0\xff\xff\xff\xff", tiff_of("<", "long", 1, 1)[:20]])
def test_what_is_no_picture_has_no_pixels(data):
    assert count_pixels(data) is None


@pytest.mark.parametrize("ending", MEDIA)
def test_a_picture_of_too_many_pixels_is_never_decoded(tmp_path, monkeypatch, ending):
    file = tmp_path / f"one.{ending}"
    file.write_bytes(file_of(ending))
    size = file.stat().st_size
    made = thumbnails.make_thumbnail(file, MEDIA[ending], size)
    assert cv2.imdecode(np.frombuffer(made, np.uint8), 1).shape == (96, 320, 3)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(thumbnails, "PIXELS_MAX", 47_999)
    assert thumbnails.make_thumbnail(file, MEDIA[ending], size) is None


def test_a_file_of_too_many_bytes_is_never_read(tmp_path):
    assert thumbnails.make_thumbnail(tmp_path / "absent.tiff", "image/tiff", 65 * 1024 * 1024) is None


def test_a_file_that_is_empty_has_none(tmp_path):
    (tmp_path / "one.jpg").touch()
    assert thumbnails.make_thumbnail(tmp_path / "one.jpg", "image/jpeg", 0) is None
