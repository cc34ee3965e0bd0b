"""H.264 as the recorder's ring carries it (Annex B, start codes), turned into what mp4 wants (lengths). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from shm_ring.records import packets
from shm_ring.records.packets import nal_units

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


def parameter_sets(data: bytes) -> ParameterSets | None:
    """Finds the first SPS and PPS in front of a key frame. Returns: None where there are none."""
    sets: dict[int, bytes] = {}
    for unit in nal_units(packets.parameter_sets(data)):
        sets.setdefault(unit[0] & 0x1F, unit)
    if _SPS not in sets or _PPS not in sets or len(sets[_SPS]) < 4:
        return None
    return ParameterSets(sets[_SPS], sets[_PPS])


def to_avcc(data: bytes) -> bytes:
    """Each NAL unit after its length; parameter sets and delimiters stay out, mp4 has them in its header."""
    kept = [unit for unit in nal_units(data) if unit[0] & 0x1F not in (_SPS, _PPS, _DELIMITER)]
    return b"".join(part for unit in kept for part in (struct.pack(">I", len(unit)), unit))
