"""Fragmented mp4 for live video: a header once per viewer, then one fragment per encoded frame. Pure bytes, no I/O.

    ftyp  moov[ mvhd trak[ tkhd mdia[ mdhd hdlr minf[ vmhd dinf stbl[ stsd[avc1[avcC]] … ] ] ] ] mvex[trex] ]
    moof[ mfhd traf[ tfhd tfdt trun ] ]  mdat          again and again, made once for all viewers

Each viewer's clock starts at 0 with its first frame, so only the 8 bytes of tfdt differ between viewers.
PyAV could mux, too, but writes one file per viewer and keeps state; this is 100 lines that can be checked byte by byte.
*Source*: ISO/IEC 14496-12 (boxes), 14496-15 (avcC).
"""

from __future__ import annotations

import struct

from msgspec import Struct

from shm_ring.records.packets import Unit
from shmcam.video.annexb import ParameterSets, to_avcc

TIMESCALE = 1_000_000
"""Ticks a second: the sensor clock's microseconds, unrounded."""

TRACK = 1
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_TRUN_BYTES = 32
_SYNC, _NOT_SYNC = 0x02000000, 0x01010000
"""Sample flags: depends on no other frame; depends on others and is no random access point."""


class MuxedFrame(Struct, frozen=True):
    """One encoded frame, muxed; all but its time is the same for every viewer."""

    before: bytes
    """moof up to the time in tfdt."""
    time_us: int
    """Sensor clock."""
    after: bytes
    """Rest of moof, and mdat."""
    key: bool
    """Decoding can begin here."""
    captured_ns: int
    """Capture time of the frame, sensor clock."""

    @property
    def unit(self) -> bytes:
        """The frame as it was muxed, in AVCC form."""
        return self.after[_TRUN_BYTES + 8 :]

    def bytes_at(self, base_us: int) -> bytes:
        """Returns the bytes for a viewer whose clock began at `base_us`."""
        return b"".join((self.before, struct.pack(">Q", max(0, self.time_us - base_us)), self.after))


def make_header(sets: ParameterSets, width: int, height: int, sample_aspect: tuple[int, int] = (1, 1)) -> bytes:
    """Returns the part before the first fragment. `sample_aspect`: width and height of one pixel."""
    mvhd = _make_full_box(b"mvhd", 0, 0, struct.pack(">IIIIIHxxxxxxxxxx", 0, 0, TIMESCALE, 0, 0x10000, 0x100) + _MATRIX
                 + bytes(24) + struct.pack(">I", TRACK + 1))  # fmt: skip
    trex = _make_full_box(b"trex", 0, 0, struct.pack(">5I", TRACK, 1, 0, 0, 0))
    moov = _make_box(b"moov", mvhd, _make_trak(sets, width, height, sample_aspect), _make_box(b"mvex", trex))
    return _make_box(b"ftyp", b"iso5", struct.pack(">I", 512), b"iso5iso6mp41avc1") + moov


def mux_unit(unit: Unit, number: int) -> MuxedFrame:
    """Muxes one frame of the packets ring as fragment `number`."""
    return make_fragment(
        to_avcc(unit.data),
        number=number,
        time_us=unit.pts_us,
        duration_us=unit.duration_us or 33_333,
        key=unit.key,
        captured_ns=unit.meta.captured_ns,
    )


def make_fragment(
    unit: bytes, *, number: int, time_us: int, duration_us: int, key: bool, captured_ns: int
) -> MuxedFrame:
    """Muxes one frame; `unit` is in AVCC form (each NAL unit after its length)."""
    mfhd = _make_full_box(b"mfhd", 0, 0, struct.pack(">I", number & 0xFFFFFFFF))
    tfhd = _make_full_box(b"tfhd", 0, 0x020000, struct.pack(">I", TRACK))  # offsets count from the moof
    sample = struct.pack(">III", max(1, duration_us), len(unit), _SYNC if key else _NOT_SYNC)
    # trun is fixed in size, so the offset of the data is known before it is written.
    moof_bytes = 8 + len(mfhd) + 8 + len(tfhd) + 20 + _TRUN_BYTES
    trun = _make_full_box(b"trun", 0, 0x000701, struct.pack(">Ii", 1, moof_bytes + 8) + sample)
    tfdt_head = struct.pack(">I4sI", 20, b"tfdt", 0x01000000)
    traf_head = struct.pack(">I4s", 8 + len(tfhd) + 20 + len(trun), b"traf")
    before = struct.pack(">I4s", moof_bytes, b"moof") + mfhd + traf_head + tfhd + tfdt_head
    return MuxedFrame(before, time_us, trun + _make_box(b"mdat", unit), key, captured_ns)


# ---- boxes


def _make_box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _make_full_box(kind: bytes, version: int, flags: int, body: bytes) -> bytes:
    return _make_box(kind, struct.pack(">I", version << 24 | flags), body)


def _make_trak(sets: ParameterSets, width: int, height: int, sample_aspect: tuple[int, int]) -> bytes:
    wide, high = sample_aspect
    tkhd = _make_full_box(b"tkhd", 0, 3, struct.pack(">IIIII8xHHHH", 0, 0, TRACK, 0, 0, 0, 0, 0, 0) + _MATRIX
                 + struct.pack(">II", (width << 16) * wide // high, height << 16))  # fmt: skip
    mdhd = _make_full_box(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, TIMESCALE, 0, 0x55C4, 0))  # language "und"
    hdlr = _make_full_box(b"hdlr", 0, 0, struct.pack(">I4s12x", 0, b"vide") + b"shmcam\0")
    dref = _make_full_box(b"dref", 0, 0, struct.pack(">I", 1) + _make_full_box(b"url ", 0, 1, b""))
    minf = _make_box(
        b"minf",
        _make_full_box(b"vmhd", 0, 1, bytes(8)),
        _make_box(b"dinf", dref),
        _make_stbl(sets, width, height, sample_aspect),
    )
    return _make_box(b"trak", tkhd, _make_box(b"mdia", mdhd, hdlr, minf))


def _make_stbl(sets: ParameterSets, width: int, height: int, sample_aspect: tuple[int, int]) -> bytes:
    """Returns the sample table, empty but for the description of the codec: all samples are in fragments."""
    avcc = _make_box(
        b"avcC",
        bytes((1, *sets.sps[1:4], 0xFF, 0xE1)),  # profile, compatibility, level; 4-byte lengths; one SPS
        struct.pack(">H", len(sets.sps)) + sets.sps,
        b"\x01" + struct.pack(">H", len(sets.pps)) + sets.pps,
    )
    avc1 = _make_box(
        b"avc1",
        struct.pack(">6xH16xHHIIIH32sHh", 1, width, height, 0x480000, 0x480000, 0, 1, b"", 24, -1),
        avcc,
        _make_box(b"pasp", struct.pack(">II", *sample_aspect)) if sample_aspect != (1, 1) else b"",
    )
    empty = [_make_full_box(kind, 0, 0, struct.pack(">I", 0)) for kind in (b"stts", b"stsc", b"stco")]
    stsz = _make_full_box(b"stsz", 0, 0, struct.pack(">II", 0, 0))
    return _make_box(b"stbl", _make_full_box(b"stsd", 0, 0, struct.pack(">I", 1) + avc1), *empty, stsz)
