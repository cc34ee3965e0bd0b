"""The address that FFmpeg opens, and its form without secrets for logs and status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    """A network camera or a device."""

    url: str
    shown: str
    """The address for logs and status: without passwords."""
    format: str | None = None
    """FFmpeg's name of the input device; None: FFmpeg finds out."""
    options: Mapping[str, str] = field(default_factory=dict)


def shown_url(url: str) -> str:
    """Returns the address without name, password and query, for logs and status."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host, query="").geturl()
