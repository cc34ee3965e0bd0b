"""Login and logout of the page: a signed cookie, Strict and HttpOnly, in return for token or password."""

from __future__ import annotations

import time
from typing import TypeVar

import msgspec
from aiohttp import web

from streamer.auth.credentials import COOKIE, COOKIE_LIFETIME_S
from streamer.http.context import CONTEXT, client_of
from streamer.http.errors import error_response
from streamer.http.request_body import read_body

R = TypeVar("R", bound=web.Response)


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that the login page sends."""

    secret: str
    """The token or the password."""


async def login(request: web.Request) -> web.StreamResponse:
    """Checks the secret and answers with a login cookie."""
    context = request.app[CONTEXT]
    body = await read_body(request, Login)
    refusal = context.guard.check_guess(body.secret, client_of(request).address, time.monotonic())
    if refusal is not None:
        return error_response(refusal.status, refusal.reason, refusal.headers)
    return add_login_cookie(request, web.Response(status=204))


def add_login_cookie(request: web.Request, response: R) -> R:
    """Adds a new login cookie to the response to a request that has just shown a secret. Returns: the response."""
    response.set_cookie(
        COOKIE,
        request.app[CONTEXT].guard.cookies.issue(time.time()),
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
