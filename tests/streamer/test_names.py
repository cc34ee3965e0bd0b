"""A camera may be called whatever config.toml allows, on every way in."""

import pytest

from tests.streamer.harness import browsing, running
from tests.streamer.pictures.test_stream import run
from tests.streamer.websocket.test_session import hear

ALLOWED = ["Garden", "2", "x_-", "North-Side_2", "a" * 32]


@pytest.mark.parametrize("name", ALLOWED)
def test_a_name_that_the_settings_allow_is_served(tmp_path, name):
    async def test():
        async with (
            running(tmp_path, f'[cameras."{name}"]\n', cameras=(name,), fps=30) as server,
            browsing(server) as browser,
        ):
            assert server.context.settings.cameras == (name,)
            for path in (f"/cam/{name}/snapshot.jpg", f"/snapshot.jpg?cam={name}", f"/api/v1/library?camera={name}"):
                assert (await browser.get(path)).status == 200, path
            assert (await browser.get(f"/api/v1/cameras/{name}")).status == 200
            assert (await browser.post(f"/api/v1/cameras/{name}/save", json={})).status == 200
            assert server.hub.asked[-1].camera == name
            async with browser.ws_connect("/ws") as socket:
                await socket.send_json({"type": "create", "camera": name})
                assert (await hear(socket, "session"))["camera"] == name

    run(test())


@pytest.mark.parametrize("name", ["a b", "a" * 33, "ä", "a.b"])
def test_another_name_is_refused(tmp_path, name):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            assert (await browser.get("/api/v1/library", params={"camera": name})).status == 400
            assert (await browser.post(f"/api/v1/cameras/{name}/save", json={})).status in {400, 404}
            assert not server.hub.asked

    run(test())
