"""REST: what the page's buttons do. Each is one command to the hub, with the command's own type as its body."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated

import msgspec

from shmcam.config.settings import LABEL
from shmcam.control import messages as c
from shmcam.control.command_table import BY_NAME
from shmcam.control.messages import Command, wire_name
from streamer.api.endpoint import Answer, Call, Endpoint, Nothing, answer_of
from streamer.http.context import camera_of


class OfCamera(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which camera."""

    camera: Annotated[str, msgspec.Meta(pattern=rf"^{LABEL}$", description="camera name, such as cam0")]


def commanding(method: str, path: str, topic: str, command: type[Command], **more: object) -> Endpoint:
    """An endpoint that passes its body on as one command; a `{camera}` in the path goes into the command."""
    row = BY_NAME[wire_name(command)]
    of_camera = "{camera}" in path

    async def run(call: Call) -> Answer:
        message = call.body
        if of_camera:
            message = dataclasses.replace(message, camera=camera_of(call.context, call.request).name)
        return answer_of(await call.context.hub.ask(message, row.timeout_s))

    return Endpoint(
        method,
        path,
        topic,
        row.help,
        run,
        Answer,
        place=OfCamera if of_camera else Nothing,
        body=command,
        **more,  # type: ignore[arg-type]
    )


def asking(path: str, topic: str, summary: str, make: Callable[[Call], Command], **more: object) -> Endpoint:
    """A GET that asks the hub for something and changes nothing."""

    async def run(call: Call) -> Answer:
        command = make(call)
        return answer_of(await call.context.hub.ask(command, BY_NAME[wire_name(command)].timeout_s))

    return Endpoint("GET", path, topic, summary, run, Answer, **more)  # type: ignore[arg-type]


def endpoints() -> list[Endpoint]:
    """All of this topic."""
    return [
        commanding("POST", "/cameras/{camera}/save", "pictures", c.Save),
        commanding("POST", "/cameras/{camera}/stack", "pictures", c.PastStack),
        commanding("POST", "/snapshot", "pictures", c.Snapshot),
        commanding("POST", "/cameras/{camera}/timelapse", "pictures", c.Timelapse),
        commanding("POST", "/cameras/{camera}/record", "recording", c.Record),
        commanding("POST", "/cameras/{camera}/night", "night", c.Night),
        commanding("POST", "/cameras/{camera}/keogram", "night", c.Keogram),
        asking(
            "/cameras/{camera}/night",
            "night",
            "Tell brightness, thresholds and day or night",
            lambda call: c.NightLevel(camera=call.place.camera),
            place=OfCamera,
        ),
        asking(
            "/cameras/{camera}/record",
            "recording",
            "Tell whether a recording runs, its file, frames and drops",
            lambda call: c.Record(action="status", camera=call.place.camera),
            place=OfCamera,
        ),
    ]
