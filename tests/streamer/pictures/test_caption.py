"""The recorder's overlay on live pictures: a real ring, the real loop and HTTP, the setting changed as the hub does."""

import asyncio
import secrets
import socket
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg
from aiohttp import ClientSession

from shm_ring import FrameMeta, RingReader
from shm_ring.formats import planes
from shmcam.control.messages import Reply, SettingChanged
from shmcam.runtime.stop import Stop
from streamer.http.listener import listen
from streamer.hub_link import HubLink
from streamer.loop import serve
from tests.machine import Deadline
from tests.streamer.harness import settings_of
from tests.streamer.pictures.test_stream import run
from tests.streamer.test_process import Camera

TEXT = '[ring]\nprefix = "{}"\n[recorder.overlay]\nplace = "bottom-left"\nfont_scale_base = 3.0\n'


def below(luma: np.ndarray) -> np.ndarray:
    """Where the text stands; the frame's number is drawn at the top. Frames are 100 everywhere else."""
    return luma[luma.shape[0] // 2 :]


class Line:
    """The hub's line, as far as the streamer uses it; each change of a setting arrives as the hub sends it."""

    def __init__(self) -> None:
        self.ours, self.hubs = socket.socketpair()
        self.waiting = []

    def fileno(self) -> int:
        return self.ours.fileno()

    def close(self) -> None:
        self.ours.close()
        self.hubs.close()

    def change(self, key: str, new: object, camera: str = "") -> None:
        self.waiting.append(SimpleNamespace(message=SettingChanged(key=key, new=new, camera=camera)))
        self.hubs.send(b"!")

    def receive(self) -> list:
        self.ours.recv(100)
        found, self.waiting = self.waiting, []
        return found

    def announce(self, event: object) -> None:
        pass

    def beat(self, **figures: object) -> None:
        pass


class Alone(HubLink):
    """Errands of a streamer without a hub."""

    async def ask(self, command: object, timeout_s: float) -> Reply:
        return Reply(ok=False, status="unreachable", text="ERROR: no hub")


class Watching:
    def __init__(self, prefix: str, line: Line, browser: ClientSession) -> None:
        self.prefix, self.line, self._browser = prefix, line, browser

    async def brightest(self, query: str = "") -> int:
        """Of the part of a snapshot that the text stands in."""
        async with self._browser.get(f"/snapshot.jpg?quality=95{query}") as answer:
            if answer.status != 200:
                return -1
            return int(below(simplejpeg.decode_jpeg(await answer.read(), colorspace="GRAY")).max())

    async def until(self, wanted, query: str = "") -> None:
        deadline = Deadline(15)
        while not wanted(await self.brightest(query)):
            assert not deadline.has_passed(), deadline
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(folder: Path, *cameras: str, pixel_format: str = "yuv420p"):
    prefix, stop, line, sock = f"t{secrets.token_hex(4)}", Stop(), Line(), listen("127.0.0.1", 0)
    settings = settings_of(folder, TEXT.format(prefix))
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with ExitStack() as stack:
        for stream in cameras:
            stack.enter_context(Camera(folder, prefix, stream=stream, pixel_format=pixel_format))
        work = asyncio.create_task(serve(settings, stop, Alone(line, folder / "no.sock", stop), sock))
        try:
            async with ClientSession(url) as browser:
                yield Watching(prefix, line, browser)
        finally:
            stop.request()
            await work
            assert not stop.failed
            for left in Path("/dev/shm").glob(f"{prefix}.*"):
                left.unlink()


def plain(brightness: int) -> bool:
    return 95 <= brightness <= 110


def written(brightness: int) -> bool:
    return brightness > 200


def ring_is_clean(prefix: str, stream: str) -> bool:
    reader = RingReader.open(f"/{prefix}.cam0.{stream}")
    try:
        frame = reader.copy(reader.latest())
        return bool((below(planes(frame.payload, frame.picture)[0]) == 100).all())
    finally:
        reader.close()


@pytest.mark.parametrize("pixel_format", ["yuv420p", "bgr24"])
def test_the_overlay_is_switched_live_and_the_ring_stays_clean(tmp_path, pixel_format):
    async def test():
        async with serving(tmp_path, "main", pixel_format=pixel_format) as seen:
            await seen.until(plain)
            seen.line.change("recorder.overlay.enable", True)
            for query in ("", "&gray=1&width=160", "&stack=4"):
                await seen.until(written, query)
            assert ring_is_clean(seen.prefix, "main")
            seen.line.change("recorder.overlay.enable", False)
            await seen.until(plain)

    run(test())


def test_the_long_exposure_bears_it_too_and_a_camera_may_have_its_own(tmp_path):
    async def test():
        async with serving(tmp_path, "main", "long") as seen:
            await seen.until(plain, "&exposure=long")
            seen.line.change("recorder.overlay.enable", True, camera="cam0")
            await seen.until(written, "&exposure=long")
            assert ring_is_clean(seen.prefix, "long")

    run(test())


def test_the_rate_that_is_shown_is_the_cameras_not_the_viewers():
    from shmcam.imaging.text_overlay import Content, Overlay, Style

    overlay, second = Overlay(Content(), Style()), 1_000_000_000
    for number in range(60):
        meta = FrameMeta(number, number * second // 20, 0)
        overlay.count_frame(meta)
        if number % 10 == 9:  # a viewer of every tenth frame, in two variants
            for _ in range(2):
                overlay.draw(np.zeros((120, 640), np.uint8), meta)
    assert "20.0 fps" in overlay.format_lines(meta)[1]
