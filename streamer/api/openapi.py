"""The OpenAPI 3.1 description of all endpoints, made from their own types, so that it cannot drift from the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from shmcam.control.messages import Command
from streamer.api import actions, archives, camera_controls, library, programs, service, sessions, status
from streamer.api.endpoint import PREFIX, Endpoint
from streamer.http.errors import Problem
from streamer.monitoring.routes import json_response

ENDPOINTS: tuple[Endpoint, ...] = (
    *status.ENDPOINTS,
    *camera_controls.ENDPOINTS,
    *actions.ENDPOINTS,
    *library.ENDPOINTS,
    *archives.ENDPOINTS,
    *service.ENDPOINTS,
    *programs.ENDPOINTS,
    *sessions.ENDPOINTS,
)
"""Every endpoint, by tag."""

_COMMON_STATUSES = {
    400: "not a valid request",
    401: "token or password needed",
    403: "not allowed for this origin, or only for an owner",
    404: "no such thing",
    409: "asked rightly, but not possible now",
    413: "body too large",
    417: "an Expect header other than 100-continue",
    421: "this server is not called so",
    429: "too many wrong guesses",
    503: "a process or place is missing, or the library cannot be read now",
    504: "a process did not answer in time",
}
"""The error statuses of every endpoint; the reason is in the body."""
_BODY_STATUSES = {408: "the body did not come in time", 415: "body is not application/json, or compressed"}
"""The further error statuses of endpoints with a body."""

JSON = dict[str, Any]


def list_api_routes() -> list[web.RouteDef]:
    """Returns the routes of all endpoints and of their description."""
    return [*(endpoint.to_route() for endpoint in ENDPOINTS), web.get("/openapi.json", serve_description)]


async def serve_description(_request: web.Request) -> web.StreamResponse:
    """Answers with the description of all endpoints."""
    return json_response(describe(ENDPOINTS))


def describe(endpoints: Sequence[Endpoint]) -> JSON:
    """Returns the whole description."""
    types = [
        kind
        for endpoint in endpoints
        for kind in (endpoint.path_params, endpoint.query, endpoint.body, endpoint.reply)
        if kind is not None
    ]
    unique = list(dict.fromkeys([*types, Problem]))
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    for kind in types:
        if issubclass(kind, Command):  # commands refuse unknown fields (shmcam.control.messages.build)
            components[kind.__name__]["additionalProperties"] = False
    by_type = dict(zip(unique, schemas, strict=True))
    paths: dict[str, JSON] = {}
    for endpoint in endpoints:
        operation = _operation_of(endpoint, by_type, components)
        paths.setdefault(PREFIX + endpoint.path, {})[endpoint.method.lower()] = operation
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


def _operation_of(endpoint: Endpoint, by_type: dict[Any, JSON], components: JSON) -> JSON:
    path = endpoint.path.replace("/", "_").replace("{", "").replace("}", "")
    operation: JSON = {
        "operationId": f"{endpoint.method.lower()}{path}",
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "parameters": [
            *_parameters_of(by_type[endpoint.path_params], components, "path"),
            *_parameters_of(by_type[endpoint.query], components, "query"),
        ],
        "responses": _responses_of(endpoint, by_type),
    }
    if endpoint.body is not None:
        schema = by_type[endpoint.body]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _parameters_of(schema: JSON, components: JSON, where: str) -> list[JSON]:
    fields = components[schema["$ref"].rpartition("/")[2]]
    required = fields.get("required", [])
    return [
        {"name": name, "in": where, "required": where == "path" or name in required, "schema": kind}
        for name, kind in fields.get("properties", {}).items()
    ]


def _responses_of(endpoint: Endpoint, by_type: dict[Any, JSON]) -> JSON:
    schema = by_type[endpoint.reply] if endpoint.reply is not None else {"type": "string", "format": "binary"}
    good = {"description": endpoint.summary, "content": {media: {"schema": schema} for media in endpoint.media_types}}
    responses: JSON = {str(code): good for code in (endpoint.status, *endpoint.other_statuses)}
    errors = dict(_COMMON_STATUSES) | (_BODY_STATUSES if endpoint.method != "GET" else {})
    for code, meaning in errors.items():
        content = {"application/json": {"schema": by_type[Problem]}}
        responses.setdefault(str(code), {"description": meaning, "content": content})
    return responses
