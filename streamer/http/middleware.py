"""The middleware around every route, which asks the guard, and the security headers of every response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web
from msgspec.structs import replace

from shmcam.network.peer_address import is_loopback
from streamer.auth.credentials import COOKIE
from streamer.auth.policy import OWN_HEADER, Refusal, RequestFacts, ServerIdentity
from streamer.http import expect_continue
from streamer.http.connection import HttpConnection
from streamer.http.context import ACCESS, CONTEXT, client_of
from streamer.http.cors import cors_headers_of, preflight_headers_of
from streamer.http.errors import error_response

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_FORWARDED = frozenset({"X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"})
"""The headers by which a proxy tells that it sends the request of somebody else."""

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)


def facts_of(request: web.Request) -> RequestFacts:
    """Returns the parts of a request that the guard reads."""
    client = client_of(request)
    return RequestFacts(
        method=request.method,
        path=request.path,
        host=client.host,
        peer=client.address,
        origin=request.headers.get("Origin"),
        content_type=request.content_type,
        authorization=request.headers.get("Authorization", ""),
        token=request.query.get("token"),
        cookie=request.cookies.get(COOKIE, ""),
        own_header=OWN_HEADER in request.headers,
        upgrade=request.headers.get("Upgrade", "").lower() == "websocket",
        preflight=request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers,
        user=client.user,
        is_local=is_loopback(cast(HttpConnection, request.protocol).peer),
        is_forwarded=not _FORWARDED.isdisjoint(request.headers),
    )


@web.middleware
async def check_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Asks the guard before any route, and turns every refusal into JSON with a reason."""
    connection = cast(HttpConnection, request.protocol)
    connection.requests += 1
    try:
        response = await _respond(request, handler)
    except web.HTTPException as problem:
        response = _to_json(problem)
    finally:
        connection.requests -= 1
        connection.connections.release(connection)
    if expect_continue.expectation_of(request):
        response.force_close()  # the body was not asked for, so what comes next may be the body or a request
    return response


async def _respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    facts, guard = facts_of(request), request.app[CONTEXT].guard
    if guard.needs_uid(facts):
        facts = replace(facts, uid=await cast(HttpConnection, request.protocol).find_uid())
    if facts.guess is not None:
        await wait_for_turn(request, facts.peer)
    answer = guard.check(facts, time.monotonic(), time.time())
    if isinstance(answer, Refusal):
        return _refuse(request, answer)
    if facts.preflight:
        return web.Response(status=204, headers=preflight_headers_of(request.headers))
    request[ACCESS] = answer
    expect_continue.check_expectation(request)
    return await handler(request)


async def wait_for_turn(request: web.Request, peer: str) -> None:
    """Waits until a guess of this peer may be checked; at once, unless it has sent wrong ones."""
    if turn_s := request.app[CONTEXT].guard.take_turn(peer, time.monotonic()):
        with cast(HttpConnection, request.protocol).may_make_room():
            await asyncio.sleep(turn_s)


def _refuse(request: web.Request, refusal: Refusal) -> web.StreamResponse:
    """Returns the answer to a refused request. Raises: HTTPSeeOther, which leads a person to the login page."""
    if refusal.status == 401 and _is_page_request(request):
        raise web.HTTPSeeOther("login")  # relative: a proxy may serve us below a path of its own
    return error_response(refusal.status, refusal.reason, refusal.headers)


def security_headers_of(identity: ServerIdentity, origin: str | None) -> dict[str, str]:
    """Returns the headers of every response to a request with this Origin."""
    return {
        "Server": "shmcam",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # Another port of this host (OctoPrint, Home Assistant) may embed the stream; another site only if it is listed.
        "Cross-Origin-Resource-Policy": "cross-origin" if identity.origins else "same-site",
        **cors_headers_of(identity.origins, origin),
    }


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Adds the headers to a response; aiohttp calls it as `on_response_prepare`."""
    identity = request.app[CONTEXT].identity
    for name, value in security_headers_of(identity, request.headers.get("Origin")).items():
        response.headers[name] = value
    if response.content_type == "text/html":
        response.headers["Content-Security-Policy"] = " ".join([CONTENT_SECURITY_POLICY, *sorted(identity.origins)])
        if not identity.origins:  # it can name no other origin, and would forbid what the line above allows
            response.headers["X-Frame-Options"] = "SAMEORIGIN"


def _is_page_request(request: web.Request) -> bool:
    return request.method == "GET" and request.path == "/" and "text/html" in request.headers.get("Accept", "")


def _to_json(problem: web.HTTPException) -> web.StreamResponse:
    """Returns an aiohttp exception as JSON. Raises: the exception itself if it is a redirect."""
    if problem.status < 400:
        raise problem
    reason = problem.text or problem.reason
    if problem.text == f"{problem.status}: {problem.reason}":
        reason = {404: "no such path", 405: "this path does not know this method"}.get(problem.status, problem.reason)
    headers = [(name, value) for name, value in problem.headers.items() if name in {"Retry-After", "Allow"}]
    return error_response(problem.status, reason, headers)
