"""A machine that is really busy: sessions give way, say why, and come back; nothing is fed in."""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from aiohttp import ClientSession

from tests.streamer.harness import soon
from tests.streamer.test_process import Camera, streaming
from tests.streamer.websocket.test_session import hear

pytestmark = pytest.mark.alone

MEASURE_S = 5.0


@contextmanager
def every_core_busy():
    """A program that does nothing but count, one for each core."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.wait()


async def pictures_per_s(socket) -> float:
    """What a session is sent, over MEASURE_S seconds."""
    began, count = time.monotonic(), 0
    while time.monotonic() - began < MEASURE_S:
        message = await soon(socket.receive())
        count += message.type.name == "BINARY"
    return count / (time.monotonic() - began)


async def share_reaches(socket, wanted) -> dict:
    """Ask for the statistics until the served share is as wanted."""
    async with asyncio.timeout(90):
        while True:
            await socket.send_json({"type": "statistics"})
            said = await hear(socket, "statistics")
            if wanted(said["share"]):
                return said
            await asyncio.sleep(0.2)


@pytest.mark.slow
def test_sessions_slow_down_on_a_busy_machine_say_why_and_resume(tmp_path):
    async def watch(url: str) -> None:
        async with ClientSession() as browser, browser.ws_connect(f"{url}/ws") as socket:
            await socket.send_json({"type": "create", "preset": "low", "fps": 15})
            await hear(socket, "session")
            await share_reaches(socket, lambda share: share == 1.0)
            calm = await pictures_per_s(socket)
            with every_core_busy():
                told = await hear(socket, "throttled")
                assert told["share"] < 1
                assert "CPU load is" in told["reason"]
                assert "limit 90 %" in told["reason"]
                slowed = await share_reaches(socket, lambda share: share <= 0.25)
                assert "CPU load is" in slowed["reason"]
                busy = await pictures_per_s(socket)
            await hear(socket, "unthrottled")
            resumed = await share_reaches(socket, lambda share: share == 1.0)
            assert resumed["reason"] == ""
            again = await pictures_per_s(socket)
        assert busy < calm / 2, f"{calm:.1f} pictures a second calm, {busy:.1f} busy"
        assert again > 1.5 * busy, f"{busy:.1f} pictures a second busy, {again:.1f} afterwards"

    with streaming(tmp_path) as streamer, Camera(tmp_path, streamer.prefix):
        asyncio.run(asyncio.wait_for(watch(streamer.url), 240))
