"""RTSP's messages and RTP's packets, in pieces, sizes and orders of all kinds."""

from __future__ import annotations

import random
import struct

import pytest

from shm_ring.records.packets import split_nal_units
from shmcam.rtsp_publish.rtp_packets import PAYLOAD_BYTES_MAX, Channels, RtpStream, split_payloads
from shmcam.rtsp_publish.rtsp_messages import NotRtsp, channels_of, take_message


def test_messages_come_in_any_pieces_with_packets_between_them():
    sent = (
        b"$\0\0\3RTP" + b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nX: a:b\r\nContent-Length: 4\r\n\r\nbody"
        b"$\1\0\0\r\n" + b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 7\r\n\r\n" + b"RTSP/1.0 401\r\n\r\n"
    )
    for step in (1, 2, 7, len(sent)):
        received, seen = bytearray(), []
        for at in range(0, len(sent), step):
            received += sent[at : at + step]
            while message := take_message(received):
                seen.append(message)
        assert [(one.is_reply, one.status, one.reason, one.value("cseq")) for one in seen] == [
            (True, 200, "200 OK", "1"),
            (False, 0, "* RTSP/1.0", "7"),
            (True, 401, "401", ""),
        ]
        assert seen[0].value("x") == "a:b"
        assert not received


@pytest.mark.parametrize(
    "strange", [b"HTTP/1.1 400 Bad\r\n\r\n", b"\x15\x03\x01\0\x02", b"\0", b"SSH-2.0-x\r\n", b"a" * 70_000]
)
def test_what_is_no_rtsp_is_said_to_be_none(strange):
    with pytest.raises(NotRtsp):
        take_message(bytearray(strange))


def test_no_bytes_break_the_parser():
    chance = random.Random(3)
    good = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 2\r\n\r\nab"
    for _ in range(2000):
        bent = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            bent[chance.randrange(len(bent))] = chance.randrange(256)
        try:
            message = take_message(bent)
        except NotRtsp:
            continue
        assert message is None or message.status >= 0


def test_channels_are_the_servers():
    assert channels_of("RTP/AVP/TCP;unicast;interleaved=4-5;ssrc=1") == Channels(4, 5)
    assert channels_of("RTP/AVP/TCP;unicast") == Channels(0, 1)


def split_packets(framed: bytes):
    """Yields (channel, packet) of what is framed."""
    while framed:
        assert framed[:1] == b"$"
        channel, size = struct.unpack_from(">BH", framed, 1)
        yield channel, framed[4 : 4 + size]
        framed = framed[4 + size :]


def join_payloads(payloads) -> list[bytes]:
    """The NAL units again, as a receiver puts them together (RFC 6184 5.8)."""
    units = []
    for payload in payloads:
        if payload[0] & 0x1F != 28:
            units.append(payload)
        elif payload[1] & 0x80:
            units.append(bytes(((payload[0] & 0xE0) | (payload[1] & 0x1F),)) + payload[2:])
        else:
            units[-1] += payload[2:]
    return units


@pytest.mark.parametrize("size", [1, 2, *(PAYLOAD_BYTES_MAX * n + d for n in (1, 2, 3) for d in range(-4, 5)), 99_999])
def test_nal_units_of_any_size_arrive_whole_in_packets_that_fit(size):
    unit = b"\0\0\0\1\x67\x64\0\x28" + b"\0\0\1\x65" + bytes(1 + at % 255 for at in range(size - 1))
    payloads = list(split_payloads(unit))
    assert max(map(len, payloads)) <= PAYLOAD_BYTES_MAX
    assert join_payloads(payloads) == list(split_nal_units(unit))
    fragments = [payload for payload in payloads if payload[0] & 0x1F == 28]
    if fragments:
        assert [payload[1] & 0xC0 for payload in fragments] == [0x80, *[0] * (len(fragments) - 2), 0x40]


def test_numbers_and_times_go_on_over_their_ends():
    stream = RtpStream(source=7, first_sequence=65_534, first_time=2**32 - 1)
    stream.channels = Channels(2, 3)
    framed = stream.frame_unit(b"\0\0\1\x41abc" * 3, 0) + stream.frame_unit(b"\0\0\1\x41abc", 1_000_000)
    packets = [(channel, struct.unpack_from(">BBHII", packet)) for channel, packet in split_packets(framed)]
    assert packets == [
        (2, (0x80, 96, 65_534, 2**32 - 1, 7)),
        (2, (0x80, 96, 65_535, 2**32 - 1, 7)),
        (2, (0x80, 96 | 0x80, 0, 2**32 - 1, 7)),
        (2, (0x80, 96 | 0x80, 1, 89_999, 7)),
    ]
    ((channel, report),) = split_packets(stream.frame_report(1_500_000_000))
    assert channel == 3
    head, kind, words, source, seconds, part, at, count, size = struct.unpack_from(">BBHIIIIII", report)
    assert (head, kind, words, source, at, count, size) == (0x80, 200, 6, 7, 89_999, 4, 16)
    assert (seconds - 2_208_988_800, part) == (1, 2**31)
    description = report[28:]
    assert description[1] == 202 and len(description) == 4 * (1 + struct.unpack_from(">H", description, 2)[0])
