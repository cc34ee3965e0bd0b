"""The endpoints of the page's buttons: each sends one command to the hub, with the command's own type as its body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec.structs import replace

from shmcam.config.settings import LABEL
from shmcam.control import messages as c
from shmcam.control.command_table import BY_NAME
from shmcam.control.messages import Command, wire_name
from streamer.api.endpoint import Answer, Call, Endpoint, Nothing, answer_of
from streamer.http.context import camera_of


class OfCamera(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The camera in the path."""

    camera: Annotated[str, msgspec.Meta(pattern=rf"^{LABEL}$", description="camera name, such as cam0")]


def make_command_endpoint(method: str, path: str, tag: str, command: type[Command], **more: object) -> Endpoint:
    """Returns an endpoint that sends its body as one command; a `{camera}` in the path goes into the command."""
    row = BY_NAME[wire_name(command)]
    of_camera = "{camera}" in path

    async def run(call: Call) -> Answer:
        message = call.body
        if of_camera:
            message = replace(message, camera=camera_of(call.context, call.request).name)
        return answer_of(await call.context.hub.ask(message, row.timeout_s))

    return Endpoint(
        method,
        path,
        tag,
        row.help,
        run,
        Answer,
        path_params=OfCamera if of_camera else Nothing,
        body=command,
        **more,  # type: ignore[arg-type]
    )


def make_read_endpoint(
    path: str, tag: str, summary: str, make_command: Callable[[Call], Command], **more: object
) -> Endpoint:
    """Returns a GET endpoint that sends a command which changes nothing."""

    async def run(call: Call) -> Answer:
        command = make_command(call)
        return answer_of(await call.context.hub.ask(command, BY_NAME[wire_name(command)].timeout_s))

    return Endpoint("GET", path, tag, summary, run, Answer, **more)  # type: ignore[arg-type]


ENDPOINTS: tuple[Endpoint, ...] = (
    make_command_endpoint("POST", "/cameras/{camera}/save", "pictures", c.Save),
    make_command_endpoint("POST", "/cameras/{camera}/stack", "pictures", c.PastStack),
    make_command_endpoint("POST", "/snapshot", "pictures", c.Snapshot),
    make_command_endpoint("POST", "/cameras/{camera}/timelapse", "pictures", c.Timelapse),
    make_command_endpoint("POST", "/cameras/{camera}/record", "recording", c.Record),
    make_command_endpoint("POST", "/record", "recording", c.Record),
    make_command_endpoint("POST", "/cameras/{camera}/night", "night", c.Night),
    make_command_endpoint("POST", "/cameras/{camera}/keogram", "night", c.Keogram),
    make_read_endpoint(
        "/cameras/{camera}/night",
        "night",
        "Tell brightness, thresholds and day or night",
        lambda call: c.NightLevel(camera=call.path_params.camera),
        path_params=OfCamera,
    ),
    make_read_endpoint(
        "/cameras/{camera}/record",
        "recording",
        "Tell whether a recording runs, its file, frames and drops",
        lambda call: c.Record(action="status", camera=call.path_params.camera),
        path_params=OfCamera,
    ),
)
