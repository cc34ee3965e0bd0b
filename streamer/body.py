"""Reading a request's body: bounded in size and time, and turned into the type the route wants."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from aiohttp import web

from streamer.context import CONTEXT

BODY_BYTES_MAX = 64 * 1024
"""shared/faults.md 3 row 10; the longest honest body is a settings change of a few hundred bytes."""

T = TypeVar("T")


async def read_body(request: web.Request, kind: type[T]) -> T:
    """Read and check a JSON body. Raises: HTTPBadRequest, HTTPRequestEntityTooLarge, HTTPRequestTimeout."""
    try:
        async with asyncio.timeout(request.app[CONTEXT].http.body_s):
            raw = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body did not come in time") from None
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except RecursionError:
        raise web.HTTPBadRequest(text="nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise web.HTTPBadRequest(text=f"body: {error}"[:300]) from None
