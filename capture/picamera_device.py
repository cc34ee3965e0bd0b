"""Finding, opening and closing Picamera2 cameras, so that nothing leaks and nothing hangs for ever.

Picamera2 and libcamera are imported inside functions: most machines have neither.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capture.source import CameraBusy, CameraError

log = logging.getLogger(__name__)

CALL_S = 20.0
"""Most that opening, configuring or starting a camera may take; a cold Pi Zero needs about 5 s."""
STOP_S = 4.0
"""Most that stopping may take; supervisord's SIGKILL comes after 5 s."""
STDERR = 2


@dataclass(frozen=True, slots=True)
class Found:
    """A camera libcamera knows, opened or not."""

    index: int
    """What Picamera2(index) opens."""
    model: str
    id: str
    """libcamera's id: the place it is connected to."""
    usb: bool
    """A webcam; source = "v4l2" serves those better."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Sensor modes, largest first; empty where libcamera does not tell."""


def available() -> bool:
    """Whether Picamera2 is installed."""
    return importlib.util.find_spec("picamera2") is not None


def found(*, afresh: bool = False) -> tuple[Found, ...]:
    """Every camera of libcamera, in Picamera2's order; no camera is opened.

    `afresh` starts libcamera anew, which is how a camera that appeared later is seen; without effect while this process
    has one open. Raises: CameraError where Picamera2 or libcamera does not work.
    """
    try:
        from picamera2 import Picamera2

        if afresh and not Picamera2._cm.cameras:
            Picamera2._cm.reset()
        by_id = {camera.id: camera for camera in Picamera2._cm.cms.cameras}
        listed = Picamera2.global_camera_info()
    except (ImportError, RuntimeError, OSError) as error:
        raise CameraError(f"Picamera2 does not work here: {error}") from error
    return tuple(
        Found(index, str(info["Model"]), info["Id"], "/usb" in info["Id"], _sizes(by_id[info["Id"]]))
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


def open_camera(index: int) -> tuple[Any, Found]:
    """Open a camera. Returns: the Picamera2 object (close it with `close_camera`) and what it is.

    Raises: CameraBusy naming the process that has it; CameraError where it is not there or does not answer.
    """
    cameras = found()
    if index >= len(cameras):
        cameras = found(afresh=True)
    if index >= len(cameras):
        raise CameraError(f"no Picamera2 camera {index}: libcamera sees {len(cameras)}")
    from picamera2 import Picamera2

    camera = Picamera2.__new__(Picamera2)
    try:
        with deadline(CALL_S, f"opening {cameras[index].model}"):
            camera.__init__(index)
    except (RuntimeError, OSError, IndexError, KeyError) as error:
        _discard(camera)
        cause = _first_cause(error)
        if "busy" in str(cause).lower():
            raise CameraBusy(f"{cameras[index].model} is held by {holder() or 'another process'}") from error
        raise CameraError(f"{cameras[index].model} does not open: {cause}") from error
    return camera, cameras[index]


def _discard(camera: Any) -> None:
    """Give back what a constructor that failed half way had taken: it would leak at every attempt."""
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
    """Close it; what goes wrong is logged. A driver that never returns ends the process after STOP_S.

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


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """End the process with a traceback (exit code 1) if the block takes longer.

    libcamera's Python bindings keep the interpreter lock during their calls, so that no thread of ours can time them
    out; faulthandler's timer is a C thread that needs no lock.
    """
    log.debug("%s, at most %.0f s", what, seconds)
    faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def holder(devices: Iterable[Path] | None = None, locks: Path = Path("/proc/locks")) -> str:
    """`name (pid N)` of the process that has a media device locked, as libcamera does while it uses a camera.

    Returns: an empty string where nobody has, or the kernel does not tell.
    """
    own = set()
    for device in devices if devices is not None else sorted(Path("/dev").glob("media*")):
        with suppress(OSError):
            status = device.stat()
            own.add(f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}")
    with suppress(OSError):
        for line in locks.read_text().splitlines():
            words = line.split()  # 1: POSIX ADVISORY WRITE 4711 00:05:337 0 EOF
            if "->" not in words and len(words) >= 6 and words[5] in own:
                return f"{_name(words[4])} (pid {words[4]})"
    return ""


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "a process"
