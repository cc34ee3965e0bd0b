"""Makes each kind of source from [camera]; its code is imported only when it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from capture.address import Address, shown_url
from capture.settings import CameraSettings
from capture.source import CameraBusy, CameraError, FrameSource

Maker = Callable[[CameraSettings, int, Path], FrameSource]


def _synthetic(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture.synthetic import SyntheticSource

    return SyntheticSource(camera.synthetic)


def _picamera2(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture.picamera import PicameraSource

    return PicameraSource(index, buffers=camera.buffers, sync_mode=camera.sync_mode)


def _file(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture.file import FileSource

    if not camera.path:
        raise CameraError('camera.path is empty: source = "file" needs a video file')
    return FileSource(folder / camera.path, loop=camera.loop, realtime=camera.realtime)


def _replay(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture.replay import ReplaySource

    if not camera.path:
        raise CameraError('camera.path is empty: source = "replay" needs what `shmcam dump-ring` wrote')
    return ReplaySource(folder / camera.path, loop=camera.loop, realtime=camera.realtime)


def _url(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture.live import LiveSource

    scheme = urlsplit(camera.url).scheme
    if scheme not in ("rtsp", "rtsps", "http", "https"):
        raise CameraError(f"camera.url {shown_url(camera.url)!r}: must begin with rtsp:// or http://")
    # TCP: UDP loses packets, and then pictures. No buffering: FFmpeg would hold back half a second of them.
    options = {"fflags": "nobuffer", **({"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {})}
    return LiveSource("url", Address(camera.url, shown_url(camera.url), options=options))


def _v4l2(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture import v4l2, webcam
    from capture.holders import held_by
    from capture.v4l2_controls import Controls
    from capture.webcam_source import WebcamSource

    known = v4l2.devices()
    device = v4l2.find(camera.device, index, known)
    if device is None:
        names = ", ".join(f"{one.path} {one.card}" for one in known) or "none"
        raise CameraError(f"no V4L2 device {camera.device or f'number {index}'!r}; there are: {names}")
    if busy := held_by([device.path]):
        raise CameraBusy(f"{device.path} ({device.card}) is {busy}")
    return WebcamSource(lambda request: webcam.address(device, request), Controls(device.path))


MAKERS: dict[str, Maker] = {
    "synthetic": _synthetic,
    "picamera2": _picamera2,
    "file": _file,
    "replay": _replay,
    "url": _url,
    "v4l2": _v4l2,
}
