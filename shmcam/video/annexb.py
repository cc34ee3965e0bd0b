"""Turns H.264 of the recorder's ring (Annex B, start codes) into the form of mp4 (lengths), and back. Pure."""

from __future__ import annotations

import struct

from msgspec import Struct

from shm_ring.records import packets
from shm_ring.records.packets import split_nal_units

_SPS, _PPS, _DELIMITER = 7, 8, 9
_START_CODE = b"\0\0\0\1"


class ParameterSets(Struct, frozen=True):
    """The sequence and picture parameter set that a decoder needs before the first frame."""

    sps: bytes
    pps: bytes

    @property
    def codec(self) -> str:
        """The codec's name for browsers, RFC 6381: `avc1.64001f`."""
        return f"avc1.{self.sps[1:4].hex()}"


def find_parameter_sets(data: bytes) -> ParameterSets | None:
    """Finds the first SPS and PPS in front of a key frame. Returns: None where there are none."""
    sets: dict[int, bytes] = {}
    for unit in split_nal_units(packets.parameter_sets(data)):
        sets.setdefault(unit[0] & 0x1F, unit)
    if _SPS not in sets or _PPS not in sets or len(sets[_SPS]) < 4:
        return None
    return ParameterSets(sets[_SPS], sets[_PPS])


def to_avcc(data: bytes) -> bytes:
    """Puts each NAL unit after its length; leaves out parameter sets and delimiters, mp4 has them in its header."""
    slices = [unit for unit in split_nal_units(data) if unit[0] & 0x1F not in (_SPS, _PPS, _DELIMITER)]
    return b"".join(part for unit in slices for part in (struct.pack(">I", len(unit)), unit))


def to_annexb(unit: bytes, sets: ParameterSets | None) -> bytes:
    """Turns a unit of `to_avcc` into Annex B again, with the parameter sets in front where they are given."""
    parts = [_START_CODE + data for data in (sets.sps, sets.pps)] if sets else []
    at = 0
    while at < len(unit):
        (size,) = struct.unpack_from(">I", unit, at)
        parts.append(_START_CODE + unit[at + 4 : at + 4 + size])
        at += 4 + size
    return b"".join(parts)
