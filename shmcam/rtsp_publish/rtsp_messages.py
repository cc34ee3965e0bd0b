"""RTSP as a publisher speaks it: requests, replies, and the description of an H.264 stream. Pure.

Sources: RFC 2326 (RTSP 1.0), RFC 8866 (SDP), RFC 6184 8.2.1 (its H.264).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from shmcam.rtsp_publish.rtp_packets import CLOCK_HZ, PAYLOAD_TYPE, Channels
from shmcam.video.annexb import ParameterSets

MESSAGE_BYTES_MAX = 64 * 1024
"""Of one message of the server, head or body."""
OK = 200
UNAUTHORIZED = 401


class NotRtsp(OSError):
    """What answers speaks something else."""

    def __init__(self) -> None:
        super().__init__("what answers is no RTSP server")


class RtspMessage(Struct, frozen=True):
    """One message of the server: the reply to a request, or a request of its own."""

    start: str
    """Its first line."""
    fields: Sequence[tuple[str, str]]
    """Header fields in their order; names in lower case."""

    @property
    def is_reply(self) -> bool:
        """False for a request of the server."""
        return self.start.startswith("RTSP/")

    @property
    def status(self) -> int:
        """The status code of a reply; 0 if it has none."""
        code = self.start.split(" ")[1:2]
        return int(code[0]) if code and code[0].isdecimal() else 0

    @property
    def reason(self) -> str:
        """Status code and its words."""
        return self.start.partition(" ")[2][:80]

    def values(self, name: str) -> list[str]:
        """Returns the values of all fields of this name."""
        return [value for key, value in self.fields if key == name]

    def value(self, name: str) -> str:
        """Returns the value of the first field of this name, or an empty text."""
        return next(iter(self.values(name)), "")


def make_request(method: str, url: str, number: int, fields: Mapping[str, str], body: bytes = b"") -> bytes:
    """Returns the bytes of a request."""
    lines = [f"{method} {url} RTSP/1.0", f"CSeq: {number}", "User-Agent: shmcam"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def take_message(received: bytearray) -> RtspMessage | None:
    """Takes the first message out of `received`, and the RTP and RTCP packets in front of it.

    Returns: None while it is not complete. Raises: NotRtsp.
    """
    while received[:1] == b"$":
        end = 4 + int.from_bytes(received[2:4], "big")
        if len(received) < max(4, end):
            return None
        del received[:end]
    while received[:2] == b"\r\n":  # some end a message with one line more
        del received[:2]
    head, separator, _ = bytes(received[:MESSAGE_BYTES_MAX]).partition(b"\r\n\r\n")
    start, ends, _ = (head + separator).partition(b"\r\n")
    is_rtsp = b"RTSP/" in start if ends else start[:1].isalpha() or start in (b"", b"\r")
    if not is_rtsp or len(head) == MESSAGE_BYTES_MAX:
        raise NotRtsp
    if not separator:
        return None
    first, *lines = head.decode("utf-8", "replace").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    message = RtspMessage(first, [(name.strip().lower(), value.strip()) for name, _, value in pairs])
    length = message.value("content-length")
    end = len(head) + 4 + (min(int(length), MESSAGE_BYTES_MAX) if length.isdecimal() else 0)
    if len(received) < end:
        return None
    del received[:end]
    return message


def channels_of(transport: str) -> Channels:
    """Returns the channels that the server's Transport names; 0 and 1, as asked for, if none."""
    match = re.search(r"interleaved=(\d{1,3})-(\d{1,3})", transport)
    return Channels(int(match[1]) & 0xFF, int(match[2]) & 0xFF) if match else Channels()


def describe(name: str, sets: ParameterSets) -> bytes:
    """Returns the SDP of a stream of H.264."""
    profile = sets.sps[1:4].hex().upper()
    texts = ",".join(base64.b64encode(unit).decode() for unit in (sets.sps, sets.pps))
    lines = [
        "v=0", "o=- 0 0 IN IP4 127.0.0.1", f"s={name}", "c=IN IP4 0.0.0.0", "t=0 0",
        f"m=video 0 RTP/AVP {PAYLOAD_TYPE}", f"a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK_HZ}",
        f"a=fmtp:{PAYLOAD_TYPE} packetization-mode=1; sprop-parameter-sets={texts}; profile-level-id={profile}",
        "a=control:streamid=0",
    ]  # fmt: skip
    return "\r\n".join([*lines, ""]).encode()
