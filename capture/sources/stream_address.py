"""The address of a camera: its parts, its form for FFmpeg, and its form without secrets for logs and status.

People write passwords into camera.url as they are. What a name and password end with is the last @ before the first
/, ? or #: so these three must be percent-encoded in them, and everything else may stand as it is. An address in which
an @ comes later may be such a password, and is refused in words that show nothing of it; but behind host, path and ? it
is one of the query, such as a mail address.

Source: RFC 3986 3.2 (authority).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote

from capture.sources.base import CameraError

SCHEMES = ("http", "https", "rtsp", "rtsps")
HTTP = ("http", "https")

HIDDEN = "…"
_TARGET_CHARACTERS = "!$&'()*+,/:;=?@[]~%-._|"
"""Characters of path and query that are sent as they are."""
_PLACE = re.compile(r"(?:\[([0-9A-Fa-f:.]*:[0-9A-Za-z:.%_-]*)\]|([^\s:\[\]/\\]+))(?::(\d{1,5}))?:?")
"""Host, in brackets if it is IPv6, and port."""
_LEAST_SECRET = 4
"""Shorter passwords are not searched for in other people's texts: nothing would be left of these."""


ANALYZE_US = "2000000"
"""FFmpeg waits as long as 7 s for parameters that only come with the next key frame; decoding waits for it anyway."""


@dataclass(frozen=True, slots=True)
class Address:
    """A network camera or a device."""

    url: str = field(repr=False)
    shown: str
    """The address for logs and status: without passwords."""
    format: str | None = None
    """FFmpeg's name of the input device; None: FFmpeg finds out."""
    options: Mapping[str, str] = field(default_factory=dict)
    hide_secrets: Callable[[str], str] = field(default=str, repr=False)
    """Takes the secrets out of what a library says about the address."""


@dataclass(frozen=True, slots=True)
class NetworkAddress:
    """The parts of camera.url. Made by `parse_url`."""

    scheme: str
    """One of SCHEMES."""
    host: str
    """Name or address; IPv6 without brackets."""
    port: int | None
    target: str = field(repr=False)
    """Path and query, as they are requested; begins with /."""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """The address for logs and status: no name, password or query, and no part of the path that has values."""
        path = self.target.partition("?")[0]
        segments = [HIDDEN if re.search("[=;]|%3[bd]", part, re.IGNORECASE) else part for part in path.split("/")]
        return f"{self.scheme}://{self.shown_place}{'/'.join(segments)}"

    @property
    def url(self) -> str:
        """The address as FFmpeg understands it, name and password percent-encoded."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        person = f"{quote(self.user, safe='')}{secret}@" if self.user or secret else ""
        return f"{self.scheme}://{person}{self.shown_place}{self.target}"

    def for_ffmpeg(self) -> Address:
        """Returns the address as it is opened. By TCP: UDP loses packets, and then pictures."""
        # What FFmpeg reads to find out the format is kept (no fflags=nobuffer): it may hold the only key frame.
        options = {"analyzeduration": ANALYZE_US}
        if self.scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        return Address(self.url, self.shown, options=options, hide_secrets=self.hide_secrets)

    def with_person(self, other: NetworkAddress) -> NetworkAddress:
        """Returns this address with the name and password of another one."""
        return replace(self, user=other.user, password=other.password)

    def hide_secrets(self, text: str) -> str:
        """Returns what a library said, without this address's secrets."""
        text = text.replace(self.url, self.shown).replace(self.target, self.shown_path)
        text = re.sub(r"//[^/\s@]*@", "//", text)
        for secret in (self.password, quote(self.password, safe="")):
            if len(secret) >= _LEAST_SECRET:
                text = text.replace(secret, HIDDEN)
        return text

    @property
    def shown_path(self) -> str:
        """The path of `shown`."""
        return self.shown.partition("://")[2].removeprefix(self.shown_place)

    @property
    def shown_place(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parse_url(url: str, name: str = "camera.url") -> NetworkAddress:
    """Returns the parts of an address. Raises: CameraError, in words that show nothing of it.

    `name`: what the address is called in these words.
    """
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        raise CameraError(f"{name} must begin with rtsp://, rtsps://, http:// or https://")
    if re.search(r"[\x00-\x1f\x7f]", rest):
        raise CameraError(f"{name} has a control character in it")
    if "#" in rest:
        raise CameraError(f"{name} has a # in it: write it as %23")
    authority, target = re.fullmatch(r"([^/?]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    person, _, place = authority.rpartition("@")
    path, _, query = target.partition("?")
    is_path = path.startswith("/") and "@" not in path and _PLACE.fullmatch(place)
    if "@" in (path + query) and not is_path and re.search("[:@]", authority):
        raise CameraError(
            f"{name} has an @ behind a / or ?: in name and password write / as %2F, ? as %3F, behind the host @ as %40"
        )
    user, _, password = person.partition(":")
    host, port = _split_place(place, name)
    if not target.startswith("/"):
        target = f"/{target}"
    target = quote(target, safe=_TARGET_CHARACTERS)
    return NetworkAddress(scheme, host, port, target, unquote(user), unquote(password))


def _split_place(place: str, name: str) -> tuple[str, int | None]:
    match = _PLACE.fullmatch(place)
    if match is None or not 0 <= int(match[3] or 0) < 65536:
        raise CameraError(
            f"{name} must have a host or host:port (up to 65535) behind :// or behind the @ of name and password"
        )
    return unquote(match[1] or match[2]), int(match[3]) if match[3] else None
