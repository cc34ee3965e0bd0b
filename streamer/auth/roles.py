"""The table of who may do what over HTTP. A change needs the owner unless it is listed.

An owner may do everything. A viewer sees pictures, video, the page and how things are, and changes nothing. Logs and
settings are the owner's, because they name addresses, folders and programs. docs/streaming.md shows the same table.
"""

from __future__ import annotations

import re
from enum import IntEnum

from msgspec import Struct


class Role(IntEnum):
    """What a request may do; a higher role may do all that a lower one may."""

    NOBODY = 0
    VIEWER = 1
    OWNER = 2


PUBLIC_PATHS = frozenset(
    {"/login", "/static/login.js", "/static/storage.js", "/static/style.css", "/static/icon.svg", "/api/v1/login"}
)
"""Paths without a login: all that the login page needs, and nothing that shows or changes anything."""

LOCAL_PATHS = frozenset({"/healthz"})
"""Paths that every program of this machine may read without a secret; their routes tell NOBODY the least."""

OWNER_PATHS = frozenset({"/api/v1/settings", "/api/v1/config", "/api/v1/logs"})
"""Paths that only an owner may read."""

VIEWER_CHANGES = frozenset({"/api/v1/logout"})
"""The changes that a viewer may make: of nobody's but his own."""

WHEP_PATH = re.compile(r"(/cam/[^/]+)?/whep(/[^/]+)?")
"""The paths of WebRTC (streamer/h264/whep.py): a viewer begins with POST and ends its own session with DELETE."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Access(Struct, frozen=True):
    """What one request may do, and why no more."""

    role: Role
    is_known: bool = True
    """True if a secret, a trusted proxy or the kernel says who it is; saved files are only for those, by default."""
    reason: str = ""
    """For a viewer: why nothing may be changed, and what would help."""


def find_role_needed(method: str, path: str) -> Role:
    """Returns the lowest role that may send this request."""
    if path in PUBLIC_PATHS:
        return Role.NOBODY
    if path in VIEWER_CHANGES or WHEP_PATH.fullmatch(path) or (method in SAFE_METHODS and path not in OWNER_PATHS):
        return Role.VIEWER
    return Role.OWNER


def find_type_needed(method: str, path: str) -> str:
    """Returns the Content-Type that a change must have; empty: any. No form of another site can send one of these."""
    if method == "DELETE":
        return ""
    return "application/sdp" if WHEP_PATH.fullmatch(path) and method == "POST" else "application/json"
