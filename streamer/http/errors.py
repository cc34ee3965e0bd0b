"""The answer to a refused request: JSON with the status and a reason, never a traceback."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from shmcam.runtime.non_utf8_escapes import encode_json


class Problem(msgspec.Struct, frozen=True):
    """The answer to every refused request."""

    status: int
    """The HTTP status again, for programs that only see the body."""
    reason: str
    """The fault, and what would be right."""


def error_response(status: int, reason: str, headers: Iterable[tuple[str, str]] = ()) -> web.Response:
    """Returns a refusal as JSON; a header may occur more than once."""
    return web.Response(
        status=status,
        body=encode_json(Problem(status, reason)),
        content_type="application/json",
        # The last three too: an answer to what is no valid request passes no route and no middleware.
        headers=CIMultiDict(
            [("Cache-Control", "no-store"), ("Server", "shmcam"), ("X-Content-Type-Options", "nosniff"), *headers]
        ),
    )
