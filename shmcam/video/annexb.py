"""H.264 as the recorder's ring carries it (Annex B, start codes), turned into what mp4 wants (lengths). Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_SPS, _PPS, _DELIMITER = 7, 8, 9


@dataclass(frozen=True, slots=True)
class ParameterSets:
    """What a decoder must know before the first frame."""

    sps: bytes
    pps: bytes

    @property
    def codec(self) -> str:
        """The name browsers ask for, RFC 6381: `avc1.64001f`."""
        return f"avc1.{self.sps[1:4].hex()}"


def nal_units(data: bytes) -> Iterator[bytes]:
    """Split at start codes (3 or 4 bytes); a unit never ends in a zero byte (7.4.1.1 of the standard)."""
    at = data.find(b"\0\0\1")
    while at >= 0:
        begin = at + 3
        at = data.find(b"\0\0\1", begin)
        unit = data[begin : at if at >= 0 else len(data)].rstrip(b"\0")
        if unit:
            yield unit


def parameter_sets(data: bytes) -> ParameterSets | None:
    """Find SPS and PPS in front of a key frame; None where there are none."""
    found: dict[int, bytes] = {}
    for unit in nal_units(data):
        found.setdefault(unit[0] & 0x1F, unit)
    if _SPS not in found or _PPS not in found or len(found[_SPS]) < 4:
        return None
    return ParameterSets(found[_SPS], found[_PPS])


def to_avcc(data: bytes) -> bytes:
    """Each NAL unit after its length; parameter sets and delimiters stay out, mp4 has them in its header."""
    kept = [unit for unit in nal_units(data) if unit[0] & 0x1F not in (_SPS, _PPS, _DELIMITER)]
    return b"".join(part for unit in kept for part in (struct.pack(">I", len(unit)), unit))
