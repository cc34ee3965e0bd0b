"""Lists, opens and closes Picamera2 cameras: nothing leaks or hangs, and the process that holds a busy one is named.

Picamera2 and libcamera are imported inside functions: most machines have neither.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from capture.deadline import arm, deadline
from capture.sources.base import CameraBusy, CameraError
from shmcam.runtime.procfs import find_lock_holders

DETECT_S = 20.0
"""Most that starting libcamera may take; a cold Pi Zero needs some seconds."""


class ConnectedCamera(Struct, frozen=True):
    """A camera libcamera knows, opened or not."""

    index: int
    """The number for Picamera2(index)."""
    model: str
    id: str
    """libcamera's id: the place it is connected to."""
    usb: bool
    """A webcam; source = "v4l2" serves those better."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Sensor modes, largest first; empty where libcamera does not tell."""


def list_cameras(*, afresh: bool = False) -> tuple[ConnectedCamera, ...]:
    """Returns every camera of libcamera, in Picamera2's order; no camera is opened.

    `afresh` starts libcamera anew, which is how a camera that appeared later is seen; without effect while this process
    has one open. Raises: CameraError where Picamera2 or libcamera does not work.
    """
    try:
        from picamera2 import Picamera2
    except Exception as error:  # a package built for another numpy raises ValueError, AttributeError and others
        raise CameraError(f"Picamera2 does not work here: {error}") from error
    try:
        with deadline(DETECT_S, "looking for cameras"):
            if afresh and not Picamera2._cm.cameras:
                Picamera2._cm.reset()
            by_id = {camera.id: camera for camera in Picamera2._cm.cms.cameras}
            listed = Picamera2.global_camera_info()
    except (RuntimeError, OSError) as error:
        raise CameraError(f"Picamera2 does not work here: {error}") from error
    return tuple(
        ConnectedCamera(index, str(info["Model"]), info["Id"], "/usb" in info["Id"], _sizes(by_id[info["Id"]]))
        for index, info in enumerate(listed)
    )


def _sizes(camera: Any) -> tuple[tuple[int, int], ...]:
    from libcamera import StreamRole

    try:
        formats = camera.generate_configuration([StreamRole.Raw]).at(0).formats
    except (RuntimeError, AttributeError):  # a webcam has no raw stream
        return ()
    sizes = {(size.width, size.height) for pixel in formats.pixel_formats for size in formats.sizes(pixel)}
    return tuple(sorted(sizes, reverse=True))


def choose_camera(index: int, cameras: tuple[ConnectedCamera, ...], place: str | None) -> ConnectedCamera | None:
    """Returns the camera that number `index` means: the one at `place` if it was seen before. Pure."""
    if place is not None:
        return next((camera for camera in cameras if camera.id == place), None)
    return cameras[index] if index < len(cameras) else None


log = logging.getLogger(__name__)

CALL_S = 20.0
"""Most that opening, configuring or starting a camera may take; a cold Pi Zero needs about 5 s."""
STOP_S = 4.0
"""Most that stopping may take; supervisord's SIGKILL comes after 5 s."""

_places: dict[int, str] = {}
"""libcamera's id of each number when this process first opened it: numbers shift when a camera goes away, and one
camera's ring must never show another camera's picture."""


def open_camera(index: int) -> tuple[Any, ConnectedCamera]:
    """Opens a camera. Returns: the Picamera2 object (close it with `close_camera`) and its description.

    Raises: CameraBusy naming the process that has it; CameraError where it is not there or does not answer.
    """
    which = choose_camera(index, list_cameras(), _places.get(index)) or choose_camera(
        index, cameras := list_cameras(afresh=True), _places.get(index)
    )
    if which is None:
        gone = f"{_places[index]} is gone" if index in _places else f"no Picamera2 camera {index}"
        raise CameraError(f"{gone}: libcamera sees {', '.join(one.model for one in cameras) or 'none'}")
    from picamera2 import Picamera2

    camera = Picamera2.__new__(Picamera2)
    try:
        with deadline(CALL_S, f"opening {which.model}"):
            camera.__init__(which.index)
    except (RuntimeError, OSError, IndexError, KeyError) as error:
        _discard(camera)
        cause = _first_cause(error)
        if "busy" in str(cause).lower():
            raise CameraBusy(f"{which.model} is held by {name_lock_holders() or 'another process'}") from error
        raise CameraError(f"{which.model} does not open: {cause}") from error
    atexit.unregister(_watch_exit)
    atexit.register(_watch_exit)  # runs before Picamera2's own hook, which would wait for ever
    if not which.usb:  # a webcam may be moved to another socket
        _places[index] = which.id
    return camera, which


def _watch_exit() -> None:
    """At the end of the interpreter, with a camera still open: Picamera2 will stop it, or the process ends anyway."""
    from picamera2 import Picamera2

    if Picamera2._cm.cameras:
        arm(STOP_S)


def _discard(camera: Any) -> None:
    """Releases what a failed constructor had taken: it would leak at every attempt."""
    if getattr(camera, "is_open", False):
        camera.is_open = False
        with suppress(RuntimeError):
            camera.camera.release()
    if hasattr(camera, "notifymeread"):
        camera.notifymeread.close()
        os.close(camera.notifyme_w)


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def close_camera(camera: Any, description: str, stopped: Callable[[], None] | None) -> None:
    """Closes a camera; errors are logged. A driver that never returns ends the process after STOP_S.

    `stopped` is called when no frame can come any more, for giving back those that are still held.
    """
    log.info("closing %s", description)
    with deadline(STOP_S, f"closing {description}"):
        try:
            camera.stop()
            if stopped is not None:
                stopped()
            camera.close()
        except (RuntimeError, OSError, KeyError) as error:
            log.warning("%s closed with an error: %s", description, _first_cause(error))


def name_lock_holders() -> str:
    """Names every other process that has a media device locked, as libcamera does while it uses a camera.

    Merely having it open says nothing: desktops keep cameras open to list them. Which media device belongs to which
    camera libcamera does not tell, so there may be several.
    """
    return " or ".join(map(str, find_lock_holders(map(str, Path("/dev").glob("media*")))))
