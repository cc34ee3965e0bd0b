"""H.264 in RTP packets, framed for the connection that RTSP uses as well. Pure.

Sources: RFC 3550 (RTP, RTCP), RFC 6184 5.6 and 5.8 (single NAL units, FU-A), RFC 2326 10.12 (framing).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from shm_ring.records.packets import split_nal_units

PAYLOAD_TYPE = 96
"""The first of the dynamic types (RFC 3551 6)."""
CLOCK_HZ = 90_000
"""RFC 6184 8.2.1."""
PAYLOAD_BYTES_MAX = 1400
"""A server that sends the packets on by UDP, as they are, needs them below an Ethernet frame's 1500 bytes."""
NTP_EPOCH_S = 2_208_988_800
"""Seconds from 1900 to 1970 (RFC 5905)."""

_FU_A = 28
_FU_BEGIN, _FU_END = 0x80, 0x40
_MARKER = 0x80
_SENDER_REPORT, _SOURCE_DESCRIPTION, _CNAME = 200, 202, 1


class Channels(NamedTuple):
    """The channels of the connection that the server wants."""

    rtp: int = 0
    rtcp: int = 1


def split_payloads(unit: bytes) -> Iterator[bytes]:
    """Yields the RTP payloads of one access unit (Annex B): a NAL unit, or a fragment of a larger one."""
    for nal_unit in split_nal_units(unit):
        if len(nal_unit) <= PAYLOAD_BYTES_MAX:
            yield nal_unit
            continue
        indicator, kind = (nal_unit[0] & 0xE0) | _FU_A, nal_unit[0] & 0x1F
        step = PAYLOAD_BYTES_MAX - 2
        for at in range(1, len(nal_unit), step):
            begin = _FU_BEGIN if at == 1 else 0
            end = _FU_END if at + step >= len(nal_unit) else 0
            yield bytes((indicator, begin | end | kind)) + nal_unit[at : at + step]


class RtpStream:
    """The numbers and times of one stream's packets."""

    def __init__(self, *, source: int, first_sequence: int, first_time: int) -> None:
        """`source`, `first_sequence`, `first_time`: random numbers of 32, 16 and 32 bits (RFC 3550 5.1)."""
        self.channels = Channels()
        self._source, self._sequence, self._first_time = source, first_sequence, first_time
        self._time = first_time
        self._packets = self._payload_bytes = 0

    def frame_unit(self, unit: bytes, pts_us: int) -> bytes:
        """Returns the packets of one access unit; `pts_us` counts from the first one."""
        self._time = (self._first_time + pts_us * CLOCK_HZ // 1_000_000) & 0xFFFFFFFF
        payloads = list(split_payloads(unit))
        framed = []
        for number, payload in enumerate(payloads, 1):
            kind = PAYLOAD_TYPE | (_MARKER if number == len(payloads) else 0)
            framed.append(_frame(self.channels.rtp, 12 + len(payload)))
            framed.append(struct.pack(">BBHII", 0x80, kind, self._sequence, self._time, self._source))
            framed.append(payload)
            self._sequence = (self._sequence + 1) & 0xFFFF
            self._packets += 1
            self._payload_bytes += len(payload)
        return b"".join(framed)

    def frame_report(self, utc_ns: int) -> bytes:
        """Returns a sender report: the newest unit's time is this wall time. It also shows that the sender lives."""
        seconds, rest_ns = divmod(utc_ns, 1_000_000_000)
        report = struct.pack(
            ">BBHIIIIII", 0x80, _SENDER_REPORT, 6, self._source, (seconds + NTP_EPOCH_S) & 0xFFFFFFFF,
            (rest_ns << 32) // 1_000_000_000, self._time, self._packets & 0xFFFFFFFF, self._payload_bytes & 0xFFFFFFFF,
        )  # fmt: skip
        name = b"shmcam"
        item = struct.pack(">IBB", self._source, _CNAME, len(name)) + name
        item += bytes(4 - len(item) % 4)  # at least one zero ends the list
        description = struct.pack(">BBH", 0x81, _SOURCE_DESCRIPTION, len(item) // 4) + item
        return _frame(self.channels.rtcp, len(report) + len(description)) + report + description


def _frame(channel: int, size: int) -> bytes:
    return struct.pack(">cBH", b"$", channel, size)
