"""The REST API: all endpoints of all topics, and the page that describes them."""

from __future__ import annotations

from functools import cache

from aiohttp import web

from streamer import (
    rest_actions,
    rest_controls,
    rest_library,
    rest_service,
    rest_sessions,
    rest_status,
)
from streamer.endpoint import Endpoint
from streamer.openapi import document
from streamer.state import json_response


@cache
def endpoints() -> tuple[Endpoint, ...]:
    """Every endpoint, by topic."""
    return tuple(
        one
        for topic in (
            rest_status,
            rest_controls,
            rest_actions,
            rest_library,
            rest_service,
            rest_sessions,
        )
        for one in topic.endpoints()
    )


def api_routes() -> list[web.RouteDef]:
    """What aiohttp needs to know."""
    return [*(endpoint.route() for endpoint in endpoints()), web.get("/openapi.json", openapi)]


async def openapi(_request: web.Request) -> web.StreamResponse:
    """The description of the API, made from its types."""
    return json_response(document(endpoints()))
