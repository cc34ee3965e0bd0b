"""`Expect: 100-continue`: a peer is asked for its body when somebody reads it, and not before.

aiohttp would say "100 Continue" ahead of every check of ours, even for paths that do not exist, and refuse other
expectations in plain text. So the header is taken out of a request where requests are made, and kept beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_parser import RawRequestMessage

Make = Callable[..., web.BaseRequest]
CONTINUE = "100-continue"
EXPECTED: web.RequestKey[str] = web.RequestKey("expected", str)
"""What the peer expects before it sends its body; gone once it was met."""


def hide_expectations(make: Make) -> Make:
    """Wrap what makes requests (`web.Server.request_factory`), so that aiohttp sees no expectation."""

    def made(message: RawRequestMessage, *rest: Any) -> web.BaseRequest:
        if hdrs.EXPECT not in message.headers:  # what was no request at all has not even headers of the usual type
            return make(message, *rest)
        headers = message.headers.copy()
        expected = ", ".join(filter(None, headers.popall(hdrs.EXPECT)))
        request = make(message._replace(headers=type(message.headers)(headers)), *rest)
        if expected and request.version >= HttpVersion11:  # older ones do not know what they say (RFC 9110, 10.1.1)
            request[EXPECTED] = expected
        return request

    return made


def expectation_of(request: web.BaseRequest) -> str:
    """What the peer still waits for before it sends its body; empty: nothing."""
    return str(request.get(EXPECTED, ""))


def check_expectation(request: web.BaseRequest) -> None:
    """Whether we can do what is expected. Raises: HTTPExpectationFailed."""
    expected = expectation_of(request)
    if expected and expected.lower() != CONTINUE:
        raise web.HTTPExpectationFailed(text=f"Expect: {expected[:40]!r}: must be {CONTINUE}")


def send_continue(request: web.BaseRequest) -> None:
    """Ask for the body if the peer waits for that."""
    if request.pop(EXPECTED, "") and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
