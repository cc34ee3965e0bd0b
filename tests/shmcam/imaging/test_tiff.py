"""TIFF and EXIF directories: other programs read ours, we read theirs, and no bytes whatever break the reader."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shmcam.imaging import tiff
from shmcam.imaging.tiff import Tag

FIRST = {Tag.MAKE: tiff.as_ascii("shmcam"), Tag.MODEL: tiff.as_ascii("c0"), Tag.IMAGE_WIDTH: tiff.as_long(640)}
EXIF = {
    Tag.EXPOSURE_TIME: tiff.as_rational(1, 50),
    Tag.ISO_SPEED_RATINGS: tiff.as_short(600),
    Tag.BITS_PER_SAMPLE: tiff.as_short(8, 8, 8),
    Tag.USER_COMMENT: tiff.as_undefined(b'ASCII\0\0\0{"frame_id": 7}'),
}
HEADER = tiff.encode_header(FIRST, EXIF)
PIXELS = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)


def reversed_bytes(header: bytes) -> bytes:
    """The same header as little-endian programs write it."""
    out = bytearray(header)
    out[:4] = b"II*\0"
    struct.pack_into("<L", out, 4, 8)
    directories = [8]
    for at in directories:
        (count,) = struct.unpack_from(">H", header, at)
        struct.pack_into("<H", out, at, count)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(">HHL", header, entry)
            struct.pack_into("<HHL", out, entry, tag, kind, number)
            letter, size = {2: ("B", 1), 3: ("H", 2), 4: ("L", 4), 5: ("L", 8), 7: ("B", 1)}[kind]
            place, bytes_ = entry + 8, size * number
            if bytes_ > 4:
                (place,) = struct.unpack_from(">L", header, entry + 8)
                struct.pack_into("<L", out, entry + 8, place)
            code = f"{bytes_ // struct.calcsize('=' + letter)}{letter}"
            struct.pack_into("<" + code, out, place, *struct.unpack_from(">" + code, header, place))
            if tag == Tag.EXIF:
                directories.append(struct.unpack_from(">L", header, place)[0])
    return bytes(out)


def picture_with_exif(kind: str, order: str) -> bytes:
    """As Pillow writes it."""
    exif, file = Image.Exif(), io.BytesIO()
    exif.endian = order
    exif[Tag.MODEL] = "other"
    exif.get_ifd(Tag.EXIF)[Tag.ISO_SPEED_RATINGS] = 800
    Image.fromarray(PIXELS).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("header", [HEADER, reversed_bytes(HEADER)], ids=["big-endian", "little-endian"])
def test_what_is_written_is_read_back_in_both_byte_orders(header):
    first = tiff.decode_tags(header)
    assert {tag: first[tag] for tag in FIRST} == FIRST and first.keys() - FIRST.keys() == {Tag.EXIF}
    assert tiff.decode_tags(header, Tag.EXIF) == EXIF


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_other_programs_is_found_and_read(kind, order):
    block = tiff.find_exif(picture_with_exif(kind, order))
    assert tiff.decode_tags(block)[Tag.MODEL] == tiff.as_ascii("other")
    if kind != "tiff":  # Pillow keeps only the first directory there
        assert tiff.number_of(tiff.decode_tags(block, Tag.EXIF)[Tag.ISO_SPEED_RATINGS]) == 800


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_picture_without_exif_has_none(ending):
    assert tiff.find_exif(cv2.imencode(f".{ending}", PIXELS)[1].tobytes()) == b""
    assert tiff.find_exif(b"GIF89a") == b"" == tiff.find_exif(b"")


def test_a_jpeg_has_its_exif_behind_other_segments_and_fill_bytes():
    jpeg = picture_with_exif("jpeg", ">")
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x/>"
    segment = b"\xff\xff\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    assert tiff.find_exif(jpeg[:2] + segment + jpeg[2:]) == tiff.find_exif(jpeg)


def test_a_damaged_entry_is_left_out_and_the_others_are_read():
    damaged = bytearray(HEADER)
    entry = HEADER.index(struct.pack(">HH", Tag.MAKE, 2))
    struct.pack_into(">L", damaged, entry + 8, 1 << 31)
    assert tiff.decode_tags(bytes(damaged)).keys() == {Tag.MODEL, Tag.IMAGE_WIDTH, Tag.EXIF}
    struct.pack_into(">H", damaged, entry + 2, 99)
    assert tiff.decode_tags(bytes(damaged)).keys() == {Tag.MODEL, Tag.IMAGE_WIDTH, Tag.EXIF}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "TIFF begins with"),
        (b"MM\0*\0\0", "TIFF begins with"),
        (b"GIF89a--", "TIFF begins with"),
        (b"MM\0*\xff\xff\xff\xff", "directory at byte 4294967295: must lie within the 8 bytes"),
        (b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHLL", Tag.EXIF, 7, 4, 8), "must be a SHORT or a LONG"),
        (b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHLL", Tag.EXIF, 4, 0, 8), "0 values of TIFF type 4"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(data, reason):
    with pytest.raises(ValueError, match=reason):
        tiff.decode_tags(data, Tag.EXIF)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_file_cut_anywhere_or_with_any_byte_changed_is_harmless(kind, order):
    whole, chance = picture_with_exif(kind, order)[:600], random.Random(1)
    cuts = [whole[:cut] for cut in range(len(whole))]
    changes = [bytearray(whole) for _ in range(2000)]
    for change in changes:
        for _ in range(chance.randint(1, 8)):
            change[chance.randrange(len(change))] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
    for data in [*cuts, *map(bytes, changes)]:
        read_or_refuse(tiff.find_exif(data))


@given(st.sampled_from([b"MM\0*", b"II*\0", b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b""]), st.binary(max_size=400))
def test_random_bytes_are_harmless(start, data):
    read_or_refuse(tiff.find_exif(start + data))
    read_or_refuse(start + data)


def test_entries_that_name_the_same_bytes_again_and_again_cost_no_memory():
    entries = (256 * 1024 - 16) // 12
    data = bytearray(b"II*\0" + struct.pack("<LH", 8, entries))
    for number in range(entries):
        data += struct.pack("<HHLL", number, 7, 200_000, 0)
    tracemalloc.start()
    with pytest.raises(ValueError, match="its values need more than the file's"):
        tiff.decode_tags(bytes(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def read_or_refuse(block: bytes) -> None:
    for pointer in (None, Tag.EXIF):
        try:
            tags = tiff.decode_tags(block, pointer)
        except ValueError:
            continue
        assert sum(len(data) for _, _, data in tags.values()) <= len(block)
