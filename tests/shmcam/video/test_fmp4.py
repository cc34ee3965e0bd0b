"""Fragmented mp4, judged by FFmpeg's reader: every frame, every time stamp, from any key frame on."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from shm_ring.records.packets import split_nal_units
from shmcam.video.annexb import ParameterSets, find_parameter_sets, to_avcc
from shmcam.video.fmp4_writer import make_fragment, make_header

TIMES_US = [0, 33_333, 66_667, 100_000, 133_333, 2_133_333, 4_133_333, 4_166_667, 4_200_000, 4_233_333, 4_300_001]
GOP = 5


def encoded(times_us: list[int]) -> list[tuple[bytes, int, bool]]:
    """What the recorder's ring would carry: Annex B units with parameter sets in front of each key frame."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 160, 120, "yuv420p"
    context.time_base = Fraction(1, 1_000_000)
    context.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "x264-params": f"keyint={GOP}:repeat-headers=1:annexb=1",
    }
    units = []
    for number, time_us in enumerate(times_us):
        frame = av.VideoFrame.from_ndarray(np.full((180, 160), 20 + 15 * number, np.uint8), "yuv420p")
        frame.pts, frame.time_base = time_us, context.time_base
        units += [(bytes(p), p.pts, p.is_keyframe) for p in context.encode(frame)]
    return units + [(bytes(p), p.pts, p.is_keyframe) for p in context.encode(None)]


def film(units: list[tuple[bytes, int, bool]]) -> bytes:
    sets = find_parameter_sets(units[0][0])
    assert sets is not None
    pieces = [
        make_fragment(to_avcc(data), number=n + 1, time_us=pts, duration_us=33_333, key=key, captured_ns=0)
        for n, (data, pts, key) in enumerate(units)
    ]
    return make_header(sets, 160, 120) + b"".join(piece.bytes_at(pieces[0].time_us) for piece in pieces)


def test_ffmpeg_reads_every_frame_with_its_exact_time():
    units = encoded(TIMES_US)
    with av.open(io.BytesIO(film(units)), format="mp4") as container:
        stream = container.streams.video[0]
        times = [round(frame.time * 1e6) for frame in container.decode(stream)]
        assert (stream.width, stream.height, stream.time_base) == (160, 120, Fraction(1, 1_000_000))
    assert times == TIMES_US


def test_a_film_may_begin_at_any_key_frame_and_its_clock_starts_at_zero():
    units = encoded(TIMES_US)[GOP:]
    assert units[0][2], "the sixth frame begins a GOP"
    with av.open(io.BytesIO(film(units)), format="mp4") as container:
        times = [round(frame.time * 1e6) for frame in container.decode(video=0)]
    assert times == [at - TIMES_US[GOP] for at in TIMES_US[GOP:]]


class Line:
    """What a player has: bytes one after the other, no way back."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, count: int) -> bytes:
        return self._file.read(count)


def test_a_film_cut_anywhere_plays_up_to_the_last_whole_fragment():
    units = encoded(TIMES_US)
    whole = film(units)
    for cut in range(len(whole) - 200, len(whole), 37):
        with av.open(Line(whole[:cut]), format="mp4") as container:
            count = 0
            try:
                for _ in container.decode(video=0):
                    count += 1
            except av.error.InvalidDataError:
                pass
        assert count >= len(units) - 3


def test_codec_name_comes_from_the_sequence_parameter_set():
    sets = find_parameter_sets(b"\0\0\0\1\x67\x64\x00\x1f\xac\0\0\1\x68\xee\x3c\x80\0\0\1\x65data")
    assert sets is not None
    assert sets.codec == "avc1.64001f"
    assert (sets.sps, sets.pps) == (b"\x67\x64\x00\x1f\xac", b"\x68\xee\x3c\x80"), "the trailing zero is padding"


@pytest.mark.parametrize("data", [b"", b"\0\0\1", b"\0\0\1\x67", b"garbage", b"\0\0\1\x65only a picture"])
def test_no_parameter_sets_are_found_where_there_are_none(data):
    assert find_parameter_sets(data) is None


def test_start_codes_of_both_lengths_become_lengths():
    data = b"\0\0\0\1\x09\x10" + b"\0\0\0\1\x67spsx" + b"\0\0\1\x68ppsx" + b"\0\0\1\x65slice one" + b"\0\0\0\1\x41two"
    assert list(split_nal_units(data)) == [b"\x09\x10", b"\x67spsx", b"\x68ppsx", b"\x65slice one", b"\x41two"]
    assert to_avcc(data) == struct.pack(">I", 10) + b"\x65slice one" + struct.pack(">I", 4) + b"\x41two"


def test_boxes_nest_to_the_byte():
    """Every box's size leads exactly to the next one; the data offset in trun points at the frame."""
    sets = find_parameter_sets(b"\0\0\1\x67\x64\x00\x1f\xac\0\0\1\x68\xee\x3c\x80")
    assert sets is not None
    piece = make_fragment(b"\0\0\0\4ABCD", number=7, time_us=1000, duration_us=5, key=True, captured_ns=0).bytes_at(400)
    data = make_header(sets, 640, 360) + piece
    kinds, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        kinds.append(kind)
        at += size
    assert at == len(data)
    assert kinds == [b"ftyp", b"moov", b"moof", b"mdat"]
    offset = struct.unpack_from(">i", piece, piece.index(b"trun") + 12)[0]
    assert piece[offset : offset + 8] == b"\0\0\0\4ABCD"
    assert struct.unpack_from(">Q", piece, piece.index(b"tfdt") + 8)[0] == 600


def test_the_header_tells_the_shape_of_pixels():
    """352x288 of 16:11 is shown 512 wide: by the track's width and by its pasp box."""
    sets = ParameterSets(b"\x67\x64\x00\x1f\x00", b"\x68\x00")
    header = make_header(sets, 352, 288, (16, 11))
    assert b"pasp" + struct.pack(">II", 16, 11) in header
    assert struct.pack(">II", 512 << 16, 288 << 16) in header
    assert b"pasp" not in make_header(sets, 352, 288)
