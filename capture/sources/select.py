"""Chooses the source that [camera] means and makes it, not opened, with the reason.

The code of a kind of source is imported only when that kind is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from capture.settings import CameraSettings
from capture.sources.base import CameraBusy, CameraError, FrameSource
from capture.sources.stream_address import HTTP, parse_url

Maker = Callable[[CameraSettings, int, Path], FrameSource]

PAUSE_SHARE = 0.9
"""A pause in a file may last so much of camera.lost_after_s: then the loop opens the file again, at its start."""


def _synthetic(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture.sources.synthetic.source import SyntheticSource

    return SyntheticSource(camera.synthetic)


def _picamera2(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture.sources.picamera2.source import PicameraSource

    return PicameraSource(index, buffers=camera.buffers, sync_mode=camera.sync_mode)


def _file(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture.sources.video_file import FileSource

    if not camera.path:
        raise CameraError('camera.path is empty: source = "file" needs a video file')
    return FileSource(
        folder / camera.path,
        loop=camera.loop,
        realtime=camera.realtime,
        longest_pause_s=PAUSE_SHARE * camera.lost_after_s,
        deinterlace=camera.deinterlace,
    )


def _replay(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture.sources.replay import ReplaySource

    if not camera.path:
        raise CameraError('camera.path is empty: source = "replay" needs what `shmcam dump-ring` wrote')
    return ReplaySource(folder / camera.path, loop=camera.loop, realtime=camera.realtime)


def _url(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    address = parse_url(camera.url)
    if address.scheme in HTTP:
        from capture.sources.mjpeg.source import HttpSource

        return HttpSource(address, key_wait_s=camera.key_frame_wait_s, deinterlace=camera.deinterlace)
    from capture.sources.pyav_stream import LiveSource

    return LiveSource(
        *("url", address.for_ffmpeg()), key_wait_s=camera.key_frame_wait_s, deinterlace=camera.deinterlace
    )


def _v4l2(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture.sources.v4l2.controls import V4l2Controls
    from capture.sources.v4l2.device import choose_device, find_devices
    from capture.sources.v4l2.source import WebcamSource, address_of
    from shmcam.runtime.procfs import name_holders

    known = find_devices()
    device = choose_device(camera.device, index, known)
    if device is None:
        names = ", ".join(f"{one.path} {one.card}" for one in known) or "none"
        raise CameraError(f"no V4L2 device {camera.device or f'number {index}'!r}; there are: {names}")
    if busy := name_holders([device.path]):
        raise CameraBusy(f"{device.path} ({device.card}) is {busy}")
    return WebcamSource(lambda request: address_of(device, request), V4l2Controls(device.path))


MAKERS: dict[str, Maker] = {
    "synthetic": _synthetic,
    "picamera2": _picamera2,
    "file": _file,
    "replay": _replay,
    "url": _url,
    "v4l2": _v4l2,
}


class Choice(NamedTuple):
    """A source, made but not opened."""

    source: FrameSource
    kind: str
    """camera.source that it is, never `auto`."""
    reason: str


AUTO_ORDER = ("picamera2", "v4l2")
"""Real cameras, in the order in which `auto` tries them; synthetic comes when none answers."""


def choose_kind(source: str, answers: dict[str, str]) -> tuple[str, str]:
    """Decides the kind of source. Pure.

    `answers`: for each real kind, why it cannot be used; empty: it can.
    Returns: kind and reason.
    """
    if source != "auto":
        return source, f"camera.source = {source}"
    for kind in AUTO_ORDER:
        if not answers[kind]:
            passed = "; ".join(f"{k}: {answers[k]}" for k in AUTO_ORDER if answers[k])
            return kind, f"auto: {kind} answers" + (f" ({passed})" if passed else "")
    return "synthetic", "auto: " + "; ".join(f"{kind}: {answers[kind]}" for kind in AUTO_ORDER)


class Chooser:
    """Chooses and makes sources.

    Once `auto` has found a real camera it stays with it: an unplugged one must not become a picture that looks alive.
    """

    def __init__(self, position: int, folder: Path) -> None:
        self._position, self._folder = position, folder
        self._settled = ""

    def __call__(self, camera: CameraSettings) -> Choice:
        """Makes the source of `camera`. Raises: CameraError where it cannot even be made."""
        index = camera.index if camera.index >= 0 else self._position
        if camera.source == "auto" and self._settled:
            kind, reason = self._settled, "auto: chosen before"
        else:
            answers = _reasons_against(index) if camera.source == "auto" else {}
            kind, reason = choose_kind(camera.source, answers)
            self._settled = kind if camera.source == "auto" and kind in AUTO_ORDER else ""
        return Choice(MAKERS[kind](camera, index, self._folder), kind, reason)


def _reasons_against(index: int) -> dict[str, str]:
    from capture.sources import detect

    return {"picamera2": detect.picamera2_problem(index), "v4l2": detect.v4l2_problem(index)}
