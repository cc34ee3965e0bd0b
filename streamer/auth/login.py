"""Logging in and out at the page: a signed cookie, Strict and HttpOnly, for people who showed token or password."""

from __future__ import annotations

import time
from typing import TypeVar, cast

import msgspec
from aiohttp import web

from streamer.auth.credentials import COOKIE, PASS_LIFE_S
from streamer.http.body import read_body
from streamer.http.connection import HttpConnection
from streamer.http.context import CONTEXT
from streamer.http.errors import error_response

R = TypeVar("R", bound=web.Response)


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the login page sends."""

    secret: str
    """Token or password."""


async def login(request: web.Request) -> web.StreamResponse:
    """Check the secret and hand out a pass."""
    context = request.app[CONTEXT]
    given = await read_body(request, Login)
    peer = cast(HttpConnection, request.protocol).peer
    refusal = context.guard.login(given.secret, peer, time.monotonic())
    if refusal is not None:
        return error_response(refusal.status, refusal.reason, refusal.headers)
    return logged_in(request, web.Response(status=204))


def logged_in(request: web.Request, answer: R) -> R:
    """Put a pass for whoever has just shown a secret into the answer."""
    answer.set_cookie(
        COOKIE,
        request.app[CONTEXT].guard.passes.issue(time.time()),
        max_age=PASS_LIFE_S,
        httponly=True,
        samesite="Strict",
        secure=request.secure,
    )
    return answer


async def logout(request: web.Request) -> web.StreamResponse:
    """Make the pass worthless."""
    request.app[CONTEXT].guard.passes.revoke(request.cookies.get(COOKIE, ""))
    answer = web.Response(status=204)
    answer.del_cookie(COOKIE)
    return answer
