"""What a refused request is told: JSON with the status and a reason, never a traceback."""

from __future__ import annotations

import msgspec
from aiohttp import web


class Problem(msgspec.Struct, frozen=True):
    """What every refused request is told."""

    status: int
    """The HTTP status again, for those who only see the body."""
    reason: str
    """What was wrong and what would be right."""


def error_response(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    """A refusal as JSON."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(Problem(status, reason)),
        content_type="application/json",
        # The last three also for answers to what was no request, which pass no route and no middleware.
        headers={
            "Cache-Control": "no-store",
            "Server": "shmcam",
            "X-Content-Type-Options": "nosniff",
            **(headers or {}),
        },
    )
