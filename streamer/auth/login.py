"""Login and logout of the page: a signed cookie, Strict and HttpOnly, in return for token or password."""

from __future__ import annotations

import time
from typing import TypeVar

import msgspec
from aiohttp import web

from streamer.auth.credentials import COOKIE, COOKIE_LIFETIME_S
from streamer.auth.policy import Refusal
from streamer.auth.roles import Role
from streamer.http.context import CONTEXT, client_of
from streamer.http.errors import error_response
from streamer.http.middleware import wait_for_turn
from streamer.http.request_body import read_body

R = TypeVar("R", bound=web.Response)


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that the login page sends."""

    secret: str
    """A token or a password, of the owner or of the viewer."""


async def login(request: web.Request) -> web.StreamResponse:
    """Checks the secret and answers with a login cookie."""
    context = request.app[CONTEXT]
    body = await read_body(request, Login)
    peer = client_of(request).address
    await wait_for_turn(request, peer)
    answer = context.guard.check_guess(body.secret, peer, time.monotonic())
    if isinstance(answer, Refusal):
        return error_response(answer.status, answer.reason, answer.headers)
    return add_login_cookie(request, web.Response(status=204), answer)


def add_login_cookie(request: web.Request, response: R, role: Role) -> R:
    """Adds a new login cookie of a role whose secret the request has just shown. Returns: the response."""
    response.set_cookie(
        COOKIE,
        request.app[CONTEXT].guard.cookies.issue(role, time.time()),
        max_age=COOKIE_LIFETIME_S,
        httponly=True,
        samesite="Strict",
        secure=client_of(request).is_secure,
    )
    return response


async def logout(request: web.Request) -> web.StreamResponse:
    """Revokes the login cookie of the request."""
    request.app[CONTEXT].guard.cookies.revoke(request.cookies.get(COOKIE, ""))
    response = web.Response(status=204)
    response.del_cookie(COOKIE)
    return response
