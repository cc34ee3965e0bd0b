"""REST: one camera's controls, from exposure to white balance and focus: what is set, what holds now, what may be."""

from __future__ import annotations

import asyncio
from difflib import get_close_matches
from typing import Annotated, Any

import msgspec

from shm_ring import Flags, FrameMeta
from shmcam.config.schema import Key
from shmcam.control import messages as c
from streamer.api.actions import OfCamera
from streamer.api.endpoint import Answer, Call, CommandRefused, Endpoint, answer_of
from streamer.http.context import Context, camera_of

OWN = ("camera.video_mode", "camera.framerate", "camera.exposure_us", "camera.gain")
"""Keys of [camera] that are controls, too; the others are those of [camera.controls], by libcamera's names."""

HUB_S = 10.0

LOOKS, LOOK_S = 100, 0.005
"""How long an answer waits for the event of the same change, which comes on a line of its own."""


class Control(msgspec.Struct, frozen=True):
    """One control of one camera."""

    name: str
    """Brightness, ExposureTime … as libcamera says, or a key of [camera]."""
    value: Any
    """As set; null: left to the camera."""
    now: float | bool | None
    """What the newest frame was taken with; null: frames do not tell."""
    type: str
    unit: str
    help: str
    choices: list[Any]
    minimum: float | None
    maximum: float | None
    key: str
    """Its name for `set` and in config.toml."""


class Controls(msgspec.Struct, frozen=True):
    """The controls of one camera. A camera that does not have one of them says so in the log of capture."""

    camera: str
    mode: str
    """video, still or slow_video; empty: capture is away."""
    settling: bool
    """A change is on its way: frames are not yet what was asked for."""
    controls: list[Control]


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed."""

    changes: Annotated[dict[str, Any], msgspec.Meta(min_length=1, max_length=32)]
    """Name → value, such as Brightness → 0.2; null gives it back to the camera. All of them or none."""
    save: bool = False
    """Also write them to config.toml."""


def _keys(context: Context) -> dict[str, Key]:
    """Every control by its short name."""
    keys = context.settings.schema()
    found = [key for key in keys if key.path.startswith("camera.controls.") or key.path in OWN]
    return {key.path.rpartition(".")[2]: key for key in found}


def _path(context: Context, camera: str, key: Key) -> str:
    """Where a control of one camera is set: in [camera] while there are no [cameras]."""
    return (
        f"cameras.{camera}.{key.path.removeprefix('camera.')}" if "cameras" in context.settings.document else key.path
    )


def _now(meta: FrameMeta | None, fps: float) -> dict[str, float | bool | None]:
    if meta is None:
        return {}
    exposure_us, gain = meta.exposure_us or None, round(meta.analogue_gain, 3) or None
    return {"ExposureTime": exposure_us, "AnalogueGain": gain, "framerate": round(fps, 2) or None}


async def _show(call: Call) -> Controls:
    context, camera = call.context, camera_of(call.context, call.request)
    sight = camera.feed.sight
    now = _now(sight.meta, sight.fps)
    return Controls(
        camera=camera.name,
        mode=str(context.system_load.cameras.get(camera.name, {}).get("mode", "")),
        settling=bool(sight.meta and sight.meta.flags & Flags.SETTLING),
        controls=[
            Control(
                name=name,
                value=context.settings.value(f"cameras.{camera.name}.{key.path}"),
                now=now.get(name),
                type=key.type,
                unit=key.unit,
                help=key.help,
                choices=list(key.choices),
                minimum=key.minimum,
                maximum=key.maximum,
                key=_path(context, camera.name, key),
            )
            for name, key in _keys(context).items()
        ],
    )


async def _turn(call: Call) -> Answer:
    context, camera, known = call.context, camera_of(call.context, call.request), _keys(call.context)
    changes = {}
    for name, value in call.body.changes.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there is: {', '.join(known)}"
            raise CommandRefused(400, f"no control {name[:40]!r}; {hint}")
        changes[_path(context, camera.name, known[name])] = value
    reply = await context.hub.ask(c.Set(changes=changes, save=call.body.save), HUB_S)
    if reply.ok:
        await _heard(context, changes)
    return answer_of(reply)


async def _heard(context: Context, changes: dict[str, Any]) -> None:
    """Who reads after the answer reads what was set: the hub's answer may overtake its event."""
    for _ in range(LOOKS):
        if all(context.settings.value(path) == value for path, value in changes.items()):
            return
        await asyncio.sleep(LOOK_S)


def endpoints() -> list[Endpoint]:
    """All of this topic."""
    path = "/cameras/{camera}/controls"
    return [
        Endpoint(
            "GET", path, "cameras", "Show exposure, gain, white balance and the rest", _show, Controls, place=OfCamera
        ),
        Endpoint(
            "POST", path, "cameras", "Turn controls of one camera, at once", _turn, Answer, place=OfCamera, body=Turn
        ),
    ]
