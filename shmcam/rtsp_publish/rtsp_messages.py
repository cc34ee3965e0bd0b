"""RTSP as a publisher speaks it: requests, replies, login, and the description of an H.264 stream. Pure.

Sources: RFC 2326 (RTSP 1.0), RFC 7616 and 7617 (Digest and Basic), RFC 8866 (SDP), RFC 6184 8.2.1 (its H.264).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shmcam.rtsp_publish.rtp_packets import CLOCK_HZ, PAYLOAD_TYPE, Channels
from shmcam.video.annexb import ParameterSets

MESSAGE_BYTES_MAX = 64 * 1024
"""Of one message of the server, head or body."""
OK = 200
UNAUTHORIZED = 401

_HASHES = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}
"""Of Digest, the better one first; also as SHA-256-sess …"""


class NotRtsp(OSError):
    """What answers speaks something else."""

    def __init__(self) -> None:
        super().__init__("what answers is no RTSP server")


@dataclass(frozen=True, slots=True)
class RtspMessage:
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


class RtspLogin:
    """Name and password, and what they answer to the challenges of a server."""

    def __init__(self, name: str, password: str) -> None:
        self._name, self._password = name, password
        self._scheme = ""
        self._challenge: Mapping[str, str] = {}
        self._uses = 0

    def take(self, challenges: Sequence[str]) -> bool:
        """Notes the best of the challenges (WWW-Authenticate). Returns: whether there is one that can be answered."""
        pairs = [text.partition(" ") for text in challenges]
        known = [(scheme.lower(), _parameters_of(rest)) for scheme, _, rest in pairs]
        digests = [pair for pair in known if pair[0] == "digest" and _hash_of(pair[1]) in _HASHES]
        digests.sort(key=lambda pair: list(_HASHES).index(_hash_of(pair[1])))
        best = [*digests, *(pair for pair in known if pair[0] == "basic")][:1]
        if not best or not self._name:
            return False
        (self._scheme, self._challenge), self._uses = best[0], 0
        return True

    def answer(self, method: str, url: str, client_nonce: str) -> str:
        """Returns the value of the field Authorization for a request; empty before a challenge."""
        if self._scheme == "basic":
            return "Basic " + base64.b64encode(f"{self._name}:{self._password}".encode()).decode()
        if not self._scheme:
            return ""
        given, algorithm = self._challenge, self._challenge.get("algorithm", "")
        digest = _HASHES[_hash_of(given)]
        realm, nonce = given.get("realm", ""), given.get("nonce", "")

        def hash_of(*parts: str) -> str:
            return digest(":".join(parts).encode(), usedforsecurity=False).hexdigest()

        self._uses += 1
        count = f"{self._uses:08x}"
        secret = hash_of(self._name, realm, self._password)
        if algorithm.lower().endswith("-sess"):
            secret = hash_of(secret, nonce, client_nonce)
        fields = {"username": _quote(self._name), "realm": f'"{realm}"', "nonce": f'"{nonce}"', "uri": _quote(url)}
        if "auth" in [word.strip() for word in given.get("qop", "").split(",")]:
            response = hash_of(secret, nonce, count, client_nonce, "auth", hash_of(method, url))
            fields |= {"qop": "auth", "nc": count, "cnonce": _quote(client_nonce)}
        else:
            response = hash_of(secret, nonce, hash_of(method, url))
            fields |= {"cnonce": _quote(client_nonce)} if algorithm.lower().endswith("-sess") else {}
        fields["response"] = _quote(response)
        fields |= {"algorithm": algorithm} if algorithm else {}
        fields |= {"opaque": f'"{given["opaque"]}"'} if "opaque" in given else {}
        return "Digest " + ", ".join(f"{name}={value}" for name, value in fields.items())


def channels_of(transport: str) -> Channels:
    """Returns the channels that the server's Transport names; 0 and 1, as asked for, if none."""
    match = re.search(r"interleaved=(\d{1,3})-(\d{1,3})", transport)
    return Channels(int(match[1]) & 0xFF, int(match[2]) & 0xFF) if match else Channels()


def describe(name: str, sets: ParameterSets) -> bytes:
    """Returns the SDP of a stream of H.264."""
    profile, texts = (
        sets.sps[1:4].hex().upper(),
        ",".join(base64.b64encode(unit).decode() for unit in (sets.sps, sets.pps)),
    )
    lines = [
        "v=0", "o=- 0 0 IN IP4 127.0.0.1", f"s={name}", "c=IN IP4 0.0.0.0", "t=0 0",
        f"m=video 0 RTP/AVP {PAYLOAD_TYPE}", f"a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK_HZ}",
        f"a=fmtp:{PAYLOAD_TYPE} packetization-mode=1; sprop-parameter-sets={texts}; profile-level-id={profile}",
        "a=control:streamid=0",
    ]  # fmt: skip
    return "\r\n".join([*lines, ""]).encode()


def _parameters_of(text: str) -> dict[str, str]:
    found = re.findall(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', text)
    return {name.lower(): quoted or plain for name, quoted, plain in found}


def _hash_of(challenge: Mapping[str, str]) -> str:
    return challenge.get("algorithm", "MD5").upper().removesuffix("-SESS")


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
