"""The guard in aiohttp's words: one middleware around every route, and headers on every answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

from streamer.auth.credentials import COOKIE
from streamer.auth.policy import OWN_HEADER, Guard, RequestFacts, ServerIdentity
from streamer.http import expect_continue
from streamer.http.connection import HttpConnection
from streamer.http.errors import error_response

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
GUARD: web.AppKey[Guard] = web.AppKey("guard", Guard)
IDENTITY: web.AppKey[ServerIdentity] = web.AppKey("identity", ServerIdentity)

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)


def facts_of(request: web.Request) -> RequestFacts:
    """What the guard needs to know of a request."""
    return RequestFacts(
        method=request.method,
        path=request.path,
        host=request.headers.get("Host", ""),
        peer=cast(HttpConnection, request.protocol).peer,
        origin=request.headers.get("Origin"),
        content_type=request.content_type,
        authorization=request.headers.get("Authorization", ""),
        token=request.query.get("token"),
        cookie=request.cookies.get(COOKIE, ""),
        own_header=OWN_HEADER in request.headers,
        upgrade=request.headers.get("Upgrade", "").lower() == "websocket",
    )


@web.middleware
async def check_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Ask the guard before any route, and turn every refusal into JSON with a reason."""
    connection = cast(HttpConnection, request.protocol)
    connection.requests += 1
    try:
        answer = await _answer(request, handler)
    except web.HTTPException as problem:
        answer = _explain(problem)
    finally:
        connection.requests -= 1
    if expect_continue.expectation_of(request):
        answer.force_close()  # nobody asked for the body: it may come all the same, or the next request may
    return answer


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    refusal = request.app[GUARD].check(facts_of(request), time.monotonic(), time.time())
    if refusal is None:
        expect_continue.check_expectation(request)
        return await handler(request)
    if refusal.status == 401 and _is_page_request(request):
        raise web.HTTPSeeOther("/login")
    return error_response(refusal.status, refusal.reason, refusal.headers)


def security_headers_of(house: ServerIdentity) -> dict[str, str]:
    """What every answer carries."""
    return {
        "Server": "shmcam",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # Another port of this host (OctoPrint, Home Assistant) may embed the stream; another site only if it is listed.
        "Cross-Origin-Resource-Policy": "cross-origin" if house.origins else "same-site",
    }


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put the headers on; aiohttp's `on_response_prepare`."""
    for name, value in security_headers_of(request.app[IDENTITY]).items():
        response.headers[name] = value
    if response.content_type == "text/html":
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        response.headers["X-Frame-Options"] = "SAMEORIGIN"


def _is_page_request(request: web.Request) -> bool:
    return request.method == "GET" and request.path == "/" and "text/html" in request.headers.get("Accept", "")


def _explain(problem: web.HTTPException) -> web.StreamResponse:
    """An aiohttp exception as JSON; redirects stay what they are."""
    if problem.status < 400:
        raise problem
    reason = problem.text or problem.reason
    if problem.text == f"{problem.status}: {problem.reason}":
        reason = {404: "no such path", 405: "this path does not know this method"}.get(problem.status, problem.reason)
    kept = {name: value for name, value in problem.headers.items() if name in {"Retry-After", "Allow"}}
    return error_response(problem.status, reason, kept)
