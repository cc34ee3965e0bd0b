"""The OpenAPI 3.1 description, made from the endpoints' own types, so that it cannot drift from what the code does.

The REST API: all endpoints of all topics, and the page that describes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from aiohttp import web

from streamer.api import actions, camera_controls, library, service, sessions
from streamer.api import status as rest_status
from streamer.api.endpoint import PREFIX, Endpoint
from streamer.http.errors import Problem
from streamer.monitoring.routes import json_response

_EVERY = {
    400: "not a valid request",
    401: "token or password needed",
    403: "not allowed for this origin",
    404: "no such thing",
    409: "asked rightly, but not possible now",
    413: "body too large",
    417: "an Expect header other than 100-continue",
    421: "this server is not called so",
    429: "too many wrong guesses",
    503: "a process or place is missing, or the library cannot be read now",
    504: "a process did not answer in time",
}
"""What any endpoint may answer; the reason is in the body."""
_WITH_BODY = {408: "the body did not come in time", 415: "body is not application/json, or compressed"}

JSON = dict[str, Any]


def document(endpoints: Sequence[Endpoint]) -> JSON:
    """Build the whole description."""
    kinds = [kind for one in endpoints for kind in (one.place, one.query, one.body, one.reply) if kind is not None]
    unique = list(dict.fromkeys([*kinds, Problem]))
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    for kind in kinds:
        if dataclasses.is_dataclass(kind):  # commands refuse what they do not know (shmcam.control.messages.build)
            components[kind.__name__]["additionalProperties"] = False
    by_kind = dict(zip(unique, schemas, strict=True))
    paths: dict[str, JSON] = {}
    for one in endpoints:
        paths.setdefault(PREFIX + one.path, {})[one.method.lower()] = _operation(one, by_kind, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "shmcam", "version": "1", "description": "One camera, many programs."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
                "login": {"type": "apiKey", "in": "cookie", "name": "shmcam_pass"},
            },
        },
        "security": [{"token": []}, {"query": []}, {"login": []}, {}],
    }


def _operation(one: Endpoint, by_kind: dict[Any, JSON], components: JSON) -> JSON:
    said: JSON = {
        "operationId": f"{one.method.lower()}{one.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "tags": [one.topic],
        "summary": one.summary,
        "parameters": [
            *_parameters(by_kind[one.place], components, "path"),
            *_parameters(by_kind[one.query], components, "query"),
        ],
        "responses": _responses(one, by_kind),
    }
    if one.body is not None:
        said["requestBody"] = {"required": True, "content": {"application/json": {"schema": by_kind[one.body]}}}
    return said


def _parameters(schema: JSON, components: JSON, where: str) -> list[JSON]:
    fields = components[schema["$ref"].rpartition("/")[2]]
    required = fields.get("required", [])
    return [
        {"name": name, "in": where, "required": where == "path" or name in required, "schema": kind}
        for name, kind in fields.get("properties", {}).items()
    ]


def _responses(one: Endpoint, by_kind: dict[Any, JSON]) -> JSON:
    schema = by_kind[one.reply] if one.reply is not None else {"type": "string", "format": "binary"}
    good = {"description": one.summary, "content": {media: {"schema": schema} for media in one.media}}
    statuses = dict(_EVERY) | (_WITH_BODY if one.method != "GET" else {})
    found: JSON = {str(one.status): good} | {str(status): good for status in one.other}
    for status, meaning in statuses.items():
        found.setdefault(
            str(status), {"description": meaning, "content": {"application/json": {"schema": by_kind[Problem]}}}
        )
    return found


@cache
def endpoints() -> tuple[Endpoint, ...]:
    """Every endpoint, by topic."""
    return tuple(
        one
        for topic in (
            rest_status,
            camera_controls,
            actions,
            library,
            service,
            sessions,
        )
        for one in topic.endpoints()
    )


def api_routes() -> list[web.RouteDef]:
    """What aiohttp needs to know."""
    return [*(endpoint.route() for endpoint in endpoints()), web.get("/openapi.json", openapi)]


async def openapi(_request: web.Request) -> web.StreamResponse:
    """The description of the API, made from its types."""
    return json_response(document(endpoints()))
