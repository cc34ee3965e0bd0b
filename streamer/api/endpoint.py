"""One path of the REST API: its types are declared once and serve the check, the answer and the OpenAPI page."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from shmcam.control.messages import Reply
from streamer.http.body import read_body
from streamer.http.context import CONTEXT, Context
from streamer.monitoring.routes import json_response

PREFIX = "/api/v1"


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request that has passed the guard and whose parts have the declared types."""

    context: Context
    request: web.Request
    place: Any
    """The path's parameters, an instance of Endpoint.place."""
    query: Any
    body: Any


Run = Callable[[Call], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path and method."""

    method: str
    path: str
    """Below /api/v1, such as /cameras/{camera}."""
    topic: str
    """Heading in the OpenAPI page."""
    summary: str
    run: Run
    """Returns an instance of `reply`, or a response of its own."""
    reply: Any
    """Type of the answer; None: not JSON (pictures, films)."""
    place: type[msgspec.Struct] = Nothing
    query: type[msgspec.Struct] = Nothing
    body: Any = None
    media: tuple[str, ...] = ("application/json",)
    """Content types of the answer."""
    status: int = 200
    other: tuple[int, ...] = field(default=())
    """Statuses beyond those every endpoint may answer with."""

    def route(self) -> web.RouteDef:
        """What aiohttp needs to know."""
        return web.route(self.method, PREFIX + self.path, self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Check the request, run, encode the answer."""
        context = request.app[CONTEXT]
        place = _converted(dict(request.match_info), self.place, "path", status=404)
        query = _converted(_single(request), self.query, "query", status=400)
        body = await read_body(request, self.body) if self.body is not None else None
        answer = await self.run(Call(context, request, place, query, body))
        return answer if isinstance(answer, web.StreamResponse) else json_response(answer, self.status)


class Answer(msgspec.Struct, frozen=True):
    """What a process said to a command."""

    ok: bool
    status: str
    """One word for programs, such as recording_started."""
    text: str
    """The same for people."""
    data: dict[str, Any]
    """Figures and paths, as in the JSON dialect of the control socket."""


class CommandRefused(web.HTTPException):
    """A command the service did not carry out; becomes a Problem."""

    def __init__(self, status: int, reason: str) -> None:
        self.status_code = status
        super().__init__(text=reason)


HTTP_OF = {
    **dict.fromkeys(("waiting", "archives"), 200),  # what was asked for is told; ok = False says that it is bad news
    **dict.fromkeys(("bad_arguments", "bad_setting", "too_long"), 400),
    "not_allowed": 403,
    **dict.fromkeys(("not_found", "unknown_camera", "unknown_process"), 404),
    **dict.fromkeys(("no_data", "no_frames", "not_possible", "not_recording", "not_saved", "disk_error"), 409),
    "recording_stopped": 409,
    **dict.fromkeys(("no_hub", "no_permission", "refused"), 503),  # refused: the hub has too many connections
    **dict.fromkeys(("not_running", "not_answered", "busy", "stopping", "failed"), 503),
    **dict.fromkeys(("no_answer", "timeout"), 504),
}
"""What a process says when it does not do as asked, and what that is in HTTP."""


def answer_of(reply: Reply) -> Answer:
    """Turn a Reply into an answer. Raises: Refused."""
    status = 200 if reply.ok else HTTP_OF.get(reply.status, 409)
    if status != 200:
        raise CommandRefused(status, reply.text.removeprefix("ERROR: ") or reply.status)
    return Answer(reply.ok, reply.status, reply.text, reply.data)


def _single(request: web.Request) -> dict[str, str]:
    """The query without the token, which is the guard's."""
    return {name: value for name, value in request.query.items() if name != "token"}


def _converted(values: dict[str, str], kind: type[msgspec.Struct], where: str, *, status: int) -> msgspec.Struct:
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        reason = re.sub(r" - at `\$\.?([^`]*)`", r" (\1)", str(error))
        raise CommandRefused(status, f"{where}: {reason}"[:300]) from None
