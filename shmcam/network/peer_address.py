"""Tells about IP addresses: which only this machine can reach, and which belong to one peer."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

IPv6_PEER_BITS = 64
"""The part of an IPv6 address that one household or host holds alone: it may use any of the 2^64 addresses below."""


def is_loopback(address: str) -> bool:
    """Returns True if only this machine can reach a socket that is bound to this address."""
    try:
        return plain_address(address).is_loopback
    except ValueError:
        return address.lower() == "localhost"


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Returns an address without zone; an IPv4 address that a socket of IPv6 shows (::ffff:…) as IPv4.

    Raises: ValueError.
    """
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def peer_key_of(text: str) -> str:
    """Returns the key under which a peer's limits are counted: an IPv4 address, or the /64 of an IPv6 address.

    A text that is no address (no TCP) is its own key.
    """
    try:
        address = plain_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv4Address) or address.is_loopback:
        return str(address)
    return str(ip_network((int(address), IPv6_PEER_BITS), strict=False))
