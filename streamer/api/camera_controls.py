"""The endpoints of a camera's controls, from exposure to white balance and focus: value set, value now, range."""

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

CAMERA_KEYS = ("camera.video_mode", "camera.framerate", "camera.exposure_us", "camera.gain")
"""Keys of [camera] that are controls too; all others are in [camera.controls], by libcamera's names."""

HUB_S = 10.0

POLLS, POLL_S = 100, 0.005
"""The wait of an answer for the event of the same change, which comes on another connection."""


class Control(msgspec.Struct, frozen=True):
    """One control of one camera."""

    name: str
    """Brightness, ExposureTime … as libcamera calls it, or a key of [camera]."""
    value: Any
    """As set; null: left to the camera."""
    now: float | bool | None
    """The value of the newest frame; null: frames do not carry it."""
    type: str
    unit: str
    help: str
    choices: list[Any]
    minimum: float | None
    maximum: float | None
    key: str
    """Its name for `set` and in config.toml."""


class Controls(msgspec.Struct, frozen=True):
    """The controls of one camera; capture logs a control that the camera does not have."""

    camera: str
    mode: str
    """video, still or slow_video; empty: capture is away."""
    settling: bool
    """A change is on its way: frames do not show it yet."""
    controls: list[Control]


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The changes of a request."""

    changes: Annotated[dict[str, Any], msgspec.Meta(min_length=1, max_length=32)]
    """Name → value, such as Brightness → 0.2; null gives it back to the camera. All of them or none."""
    save: bool = False
    """Also writes them to config.toml."""


def _find_keys(context: Context) -> dict[str, Key]:
    """Returns the key of every control by its short name."""
    keys = context.settings.schema()
    controls = [key for key in keys if key.path.startswith("camera.controls.") or key.path in CAMERA_KEYS]
    return {key.path.rpartition(".")[2]: key for key in controls}


def _path_of(context: Context, camera: str, key: Key) -> str:
    """Returns where a control of one camera is set: in [camera] while there are no [cameras]."""
    return (
        f"cameras.{camera}.{key.path.removeprefix('camera.')}" if "cameras" in context.settings.document else key.path
    )


def _values_of(meta: FrameMeta | None, fps: float) -> dict[str, float | bool | None]:
    if meta is None:
        return {}
    exposure_us, gain = meta.exposure_us or None, round(meta.analogue_gain, 3) or None
    return {"ExposureTime": exposure_us, "AnalogueGain": gain, "framerate": round(fps, 2) or None}


async def _show_controls(call: Call) -> Controls:
    context, camera = call.context, camera_of(call.context, call.request)
    status = camera.feed.status
    now = _values_of(status.meta, status.fps)
    return Controls(
        camera=camera.name,
        mode=str(context.system_load.cameras.get(camera.name, {}).get("mode", "")),
        settling=bool(status.meta and status.meta.flags & Flags.SETTLING),
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
                key=_path_of(context, camera.name, key),
            )
            for name, key in _find_keys(context).items()
        ],
    )


async def _change_controls(call: Call) -> Answer:
    context, camera, keys = call.context, camera_of(call.context, call.request), _find_keys(call.context)
    changes = {}
    for name, value in call.body.changes.items():
        if name not in keys:
            near = get_close_matches(name, keys, 1)
            hint = f"did you mean {near[0]}?" if near else f"there is: {', '.join(keys)}"
            raise CommandRefused(400, f"no control {name[:40]!r}; {hint}")
        changes[_path_of(context, camera.name, keys[name])] = value
    reply = await context.hub.ask(c.Set(changes=changes, save=call.body.save), HUB_S)
    if reply.ok:
        await _wait_for_settings(context, changes)
    return answer_of(reply)


async def _wait_for_settings(context: Context, changes: dict[str, Any]) -> None:
    """Waits until the settings hold the changes, for reads after the answer: the hub's reply may overtake its event."""
    for _ in range(POLLS):
        if all(context.settings.value(path) == value for path, value in changes.items()):
            return
        await asyncio.sleep(POLL_S)


_PATH = "/cameras/{camera}/controls"
ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET",
        _PATH,
        "cameras",
        "Show exposure, gain, white balance and the rest",
        _show_controls,
        Controls,
        path_params=OfCamera,
    ),
    Endpoint(
        "POST",
        _PATH,
        "cameras",
        "Turn controls of one camera, at once",
        _change_controls,
        Answer,
        path_params=OfCamera,
        body=Turn,
    ),
)
