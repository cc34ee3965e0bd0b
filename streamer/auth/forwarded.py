"""The client behind a reverse proxy: what X-Forwarded-For, -Host and -Proto say, where a trusted proxy has sent them.

Any client can send these headers, so they count only if the other end of the connection is listed in
`http.trusted_proxies`. Of X-Forwarded-For the last address counts that is no proxy of ours: a proxy adds the address
that it sees at the end, and the client may have invented what stands before. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network

from msgspec import Struct

from shmcam.network.peer_address import plain_address

HOPS_MAX = 16
"""The addresses of X-Forwarded-For that are looked at, from its end."""


class RequestClient(Struct, frozen=True):
    """The client of one request, which may stand behind a proxy."""

    address: str
    """IP address; of the connection's other end where no trusted proxy names another."""
    host: str | None
    """The Host that the client addressed; None: the header is absent, which HTTP/1.0 allows."""
    is_secure: bool
    """True if the client's own connection is encrypted."""
    user: str = ""
    """The name of the person who has logged in at the proxy (`http.trusted_header`); empty: none."""


class TrustedProxies:
    """The proxies whose word counts."""

    def __init__(self, networks: Iterable[str], user_header: str = "") -> None:
        """`networks`: addresses and networks. `user_header`: the header that names a person; empty: none does."""
        self._networks = tuple(ip_network(text, strict=False) for text in networks)
        self._user_header = user_header

    def is_trusted(self, address: str) -> bool:
        """Returns whether this address is a proxy of ours; False for what is no address."""
        try:
            ip = plain_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)

    def find_client(
        self, peer: str, headers: Mapping[str, str], forwarded_for: Iterable[str], *, host: str | None, is_secure: bool
    ) -> RequestClient:
        """Returns the client of a request from `peer`, the other end of the connection.

        `forwarded_for`: all lines of X-Forwarded-For. `host` and `is_secure` are those of the connection itself.
        """
        if not self._networks or not self.is_trusted(peer):
            return RequestClient(peer, host, is_secure)
        return RequestClient(
            self._find_address(peer, ",".join(forwarded_for)),
            _last_of(headers.get("X-Forwarded-Host", "")) or host,
            _last_of(headers.get("X-Forwarded-Proto", "")).lower() in {"https", "wss"} or is_secure,
            headers.get(self._user_header, "").strip() if self._user_header else "",
        )

    def _find_address(self, peer: str, forwarded_for: str) -> str:
        address = peer
        for text in reversed(forwarded_for.split(",")[-HOPS_MAX:]):
            hop = _address_in(text)
            if hop is None:
                break  # "unknown", or garbage: what stands before it is no better
            address = str(hop)
            if not self.is_trusted(address):
                break
        return address


def _address_in(text: str) -> IPv4Address | IPv6Address | None:
    """Returns the address of one hop: plain, with a port, or in brackets."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return plain_address(text)
    except ValueError:
        return None


def _last_of(values: str) -> str:
    """Returns the last of a list: the word of the nearest proxy."""
    return values.rpartition(",")[2].strip()
