"""The body of a request, read within limits of size and time: JSON as the type that the route declares, or text."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar, cast

import msgspec
from aiohttp import web

from shmcam.control.messages import Command, build
from streamer.http import expect_continue
from streamer.http.connection import HttpConnection
from streamer.http.context import CONTEXT

BODY_BYTES_MAX = 64 * 1024
"""The largest body; the longest honest one is a settings change of a few hundred bytes."""

T = TypeVar("T")


async def read_text(request: web.Request) -> str:
    """Reads a body of text. Raises: an HTTPException with the reason."""
    try:
        return (await _read(request)).decode()
    except UnicodeDecodeError:
        raise web.HTTPBadRequest(text="body: must be UTF-8") from None


async def read_body(request: web.Request, kind: type[T]) -> T:
    """Reads and checks a JSON body. Raises: an HTTPException with the reason."""
    raw = await _read(request)
    try:
        return _convert(_narrow_numbers(msgspec.json.decode(raw or b"{}")), kind)
    except RecursionError:
        raise web.HTTPBadRequest(text="nested too deeply") from None
    except (ValueError, msgspec.DecodeError) as error:  # ValueError: also what is not UTF-8, and `build`'s refusals
        raise web.HTTPBadRequest(text=f"body: {error}"[:300]) from None


async def _read(request: web.Request) -> bytes:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType(text="send the body as it is, without Content-Encoding")
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise web.HTTPRequestEntityTooLarge(BODY_BYTES_MAX)
    expect_continue.send_continue(request)
    try:
        # A flood of bodies that never come must not keep others out.
        with cast(HttpConnection, request.protocol).may_make_room():
            async with asyncio.timeout(request.app[CONTEXT].http.body_s):
                return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body did not come in time") from None


def _convert(value: Any, kind: type[T]) -> T:
    """Converts decoded JSON to the type. Raises: ValueError, which names a field that does not exist."""
    if not issubclass(kind, Command):
        return msgspec.convert(value, kind)
    if not isinstance(value, dict):
        raise ValueError("Expected `object`")
    return build(kind, value)


def _narrow_numbers(value: Any) -> Any:
    """Returns the value with each whole float as int: JSON has one kind of number, so 3.0 may stand for 3."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _narrow_numbers(inner) for name, inner in value.items()}
    return [_narrow_numbers(inner) for inner in value] if isinstance(value, list) else value
