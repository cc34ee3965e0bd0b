"""Tells which network addresses only this machine can reach."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(address: str) -> bool:
    """Returns True if only this machine can reach a socket that is bound to this address."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address.lower() == "localhost"
