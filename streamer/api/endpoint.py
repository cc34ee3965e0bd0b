"""An endpoint of the REST API: its types are declared once, for the check, the answer and the OpenAPI description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from shmcam.control.messages import Reply, to_plain_words
from streamer.http.context import CONTEXT, Context
from streamer.http.request_body import read_body
from streamer.monitoring.routes import json_response

PREFIX = "/api/v1"


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class Call(Struct, frozen=True):
    """One request that has passed the guard; its parts have the declared types."""

    context: Context
    request: web.Request
    path_params: Any
    """The parameters in the path, an instance of Endpoint.path_params."""
    query: Any
    body: Any


Run = Callable[[Call], Awaitable[object]]


class Endpoint(Struct, frozen=True):
    """One path and method."""

    method: str
    path: str
    """Below /api/v1, such as /cameras/{camera}."""
    tag: str
    """Heading in the OpenAPI description."""
    summary: str
    run: Run
    """Returns an instance of `reply`, or an aiohttp response."""
    reply: Any
    """Type of the answer; None: not JSON (pictures, videos)."""
    path_params: type[msgspec.Struct] = Nothing
    query: type[msgspec.Struct] = Nothing
    body: Any = None
    media_types: tuple[str, ...] = ("application/json",)
    """Content types of the answer."""
    status: int = 200
    other_statuses: tuple[int, ...] = ()
    """Good statuses beside `status`."""

    def to_route(self) -> web.RouteDef:
        """Returns the route for aiohttp."""
        return web.route(self.method, PREFIX + self.path, self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Checks the request, runs it and encodes the answer."""
        context = request.app[CONTEXT]
        path_params = _convert(dict(request.match_info), self.path_params, "path", status=404)
        query = _convert(_query_of(request), self.query, "query", status=400)
        body = await read_body(request, self.body) if self.body is not None else None
        answer = await self.run(Call(context, request, path_params, query, body))
        return answer if isinstance(answer, web.StreamResponse) else json_response(answer, self.status)


class Answer(msgspec.Struct, frozen=True):
    """The reply of a process to a command."""

    ok: bool
    status: str
    """One word for programs, such as recording_started."""
    text: str
    """The same for people."""
    data: dict[str, Any]
    """Figures and paths, as in the JSON dialect of the control socket."""


class CommandRefused(web.HTTPException):
    """A command that was not carried out; the middleware turns it into a Problem."""

    def __init__(self, status: int, reason: str) -> None:
        self.status_code = status
        super().__init__(text=reason)


HTTP_STATUS = {
    **dict.fromkeys(("waiting", "archives"), 200),  # ok = False means bad news, not a failed command
    **dict.fromkeys(("bad_arguments", "bad_setting", "too_long"), 400),
    "not_allowed": 403,
    **dict.fromkeys(("not_found", "unknown_camera", "unknown_process"), 404),
    **dict.fromkeys(("no_data", "no_frames", "not_possible", "not_recording", "not_saved", "disk_error"), 409),
    "recording_stopped": 409,
    **dict.fromkeys(("no_hub", "no_permission", "refused"), 503),  # refused: the hub has too many connections
    **dict.fromkeys(("not_running", "not_answered", "busy", "stopping", "failed"), 503),
    **dict.fromkeys(("no_answer", "timeout"), 504),
}
"""The HTTP status for each status word of a reply with ok = False."""


def answer_of(reply: Reply) -> Answer:
    """Returns a reply as an Answer. Raises: CommandRefused."""
    status = 200 if reply.ok else HTTP_STATUS.get(reply.status, 409)
    if status != 200:
        raise CommandRefused(status, reply.text.removeprefix("ERROR: ") or reply.status)
    return Answer(reply.ok, reply.status, reply.text, reply.data)


def _query_of(request: web.Request) -> dict[str, str]:
    """Returns the query without the token, which is for the guard."""
    return {name: value for name, value in request.query.items() if name != "token"}


def _convert(values: dict[str, str], kind: type[msgspec.Struct], where: str, *, status: int) -> msgspec.Struct:
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        name = place.strip("`").removeprefix("$.")
        reason = to_plain_words(what) + (f" ({name})" if name else "")
        raise CommandRefused(status, f"{where}: {reason}"[:300]) from None
