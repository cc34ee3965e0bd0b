"""The header `Expect: 100-continue`: the server asks for a body when a route reads it, and not before.

aiohttp would send "100 Continue" before every check of ours, even for paths that do not exist, and refuse other
expectations in plain text. So the header is taken out of a request when the request is made, and kept beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_parser import RawRequestMessage

RequestFactory = Callable[..., web.BaseRequest]
CONTINUE = "100-continue"
EXPECTED: web.RequestKey[str] = web.RequestKey("expected", str)
"""The value of the header; removed when "100 Continue" has been sent."""


def hide_expectations(factory: RequestFactory) -> RequestFactory:
    """Wraps the factory of requests (`web.Server.request_factory`), so that aiohttp sees no expectation."""

    def make_request(message: RawRequestMessage, *rest: Any) -> web.BaseRequest:
        if hdrs.EXPECT not in message.headers:  # an invalid request has headers of another type
            return factory(message, *rest)
        headers = message.headers.copy()
        expected = ", ".join(filter(None, headers.popall(hdrs.EXPECT)))
        request = factory(message._replace(headers=type(message.headers)(headers)), *rest)
        if expected and request.version >= HttpVersion11:  # in HTTP/1.0 it means nothing (RFC 9110, 10.1.1)
            request[EXPECTED] = expected
        return request

    return make_request


def expectation_of(request: web.BaseRequest) -> str:
    """Returns what the peer still expects before it sends its body; empty if nothing."""
    return str(request.get(EXPECTED, ""))


def check_expectation(request: web.BaseRequest) -> None:
    """Checks that the expectation can be met. Raises: HTTPExpectationFailed."""
    expected = expectation_of(request)
    if expected and expected.lower() != CONTINUE:
        raise web.HTTPExpectationFailed(text=f"Expect: {expected[:40]!r}: must be {CONTINUE}")


def send_continue(request: web.BaseRequest) -> None:
    """Sends "100 Continue" if the peer waits for it."""
    if request.pop(EXPECTED, "") and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
