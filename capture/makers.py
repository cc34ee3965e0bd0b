"""Makes each kind of source from [camera]; its code is imported only when it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from capture.settings import CameraSettings
from capture.source import CameraBusy, CameraError, FrameSource

Maker = Callable[[CameraSettings, int, Path], FrameSource]


def shown_url(url: str) -> str:
    """The address without name and password, for logs and status."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host, query="").geturl()


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
    from capture.live import Address, LiveSource

    scheme = urlsplit(camera.url).scheme
    if scheme not in ("rtsp", "rtsps", "http", "https"):
        raise CameraError(f"camera.url {shown_url(camera.url)!r}: must begin with rtsp:// or http://")
    # TCP: UDP loses packets, and then pictures. No buffering: FFmpeg would hold back half a second of them.
    options = {"fflags": "nobuffer", **({"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {})}
    return LiveSource("url", Address(camera.url, shown_url(camera.url), options=options))


def _v4l2(camera: CameraSettings, index: int, folder: Path) -> FrameSource:
    from capture import v4l2, webcam
    from capture.holders import held_by
    from capture.live import Address, LiveSource

    known = v4l2.devices()
    device = v4l2.find(camera.device, index, known)
    if device is None:
        names = ", ".join(f"{one.path} {one.card}" for one in known) or "none"
        raise CameraError(f"no V4L2 device {camera.device or f'number {index}'!r}; there are: {names}")
    if busy := held_by([device.path]):
        raise CameraBusy(f"{device.path} ({device.card}) is {busy}")
    mode = webcam.choose(device.modes, *camera.size, camera.framerate, camera.codec)
    if mode is None:
        raise CameraError(f"{device.path} ({device.card}) offers no format {camera.codec}; it has {device.modes}")
    address = Address(
        device.path, f"{device.path} ({device.card}) {mode}", "v4l2", webcam.options(mode, camera.framerate)
    )
    return LiveSource("v4l2", address)


MAKERS: dict[str, Maker] = {
    "synthetic": _synthetic,
    "picamera2": _picamera2,
    "file": _file,
    "replay": _replay,
    "url": _url,
    "v4l2": _v4l2,
}
