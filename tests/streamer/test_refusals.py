"""What the exporter does not do as asked, seen over HTTP: a server in this process, hub and exporter as they run."""

from pathlib import Path

import pytest

from shm_ring.formats import geometry
from shmcam.control.call import acall
from shmcam.library import Catalogue
from tests.exporter.conftest import Feed
from tests.exporter.conftest import running as exporting
from tests.streamer.harness import browsing, running
from tests.streamer.pictures.test_stream import run

NEVER = {"since": "2020-01-01", "until": "2020-01-02"}
REFUSED = [
    ("/cameras/cam0/save", {"formats": ["exe"]}, 400, "must be of jpg, png, npy, tiff"),
    ("/snapshot", {"formats": ["exe"]}, 400, "must be of jpg, png, npy, tiff"),
    ("/snapshot", {"cameras": ["cam9"]}, 400, "no camera 'cam9'"),
    ("/cameras/cam0/stack", {"method": "dance", "before_s": 600}, 400, "must be one of mean,"),
    ("/cameras/cam0/stack", {"method": "long"}, 409, "no virtual long exposure; set export.long_exposure_s"),
    ("/cameras/cam0/timelapse", {"action": "build", "since": "once"}, 400, "expected ISO 8601"),
    ("/cameras/cam0/timelapse", {"action": "build", **NEVER}, 409, "no pictures of that span"),
    ("/archives", {"name": "trial", "since": "once"}, 400, "expected ISO 8601"),
    ("/archives", {"name": "trial", **NEVER}, 409, "holds nothing of that span"),
    ("/archives/change", {"action": "delete", "name": "nowhere"}, 404, "no archive nowhere"),
    ("/archives/change", {"action": "verify", "name": "nowhere"}, 409, "missing, damaged"),
]


class Line:
    """The streamer's own way to the hub."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path

    async def ask(self, command, timeout_s: float):
        return await acall(self.socket_path, command, timeout_s)


@pytest.fixture
def service(tmp_path):
    yield from exporting(tmp_path)


def test_a_wrong_wish_is_400_and_one_that_comes_at_a_bad_time_409(tmp_path, service):
    async def test():
        async with running(folder) as server, browsing(server) as browser:
            server.context.hub = Line(service.settings.socket_path)
            server.context.catalogue = Catalogue.of(service.settings)
            for path, body, status, reason in REFUSED:
                answer = await browser.post(f"/api/v1{path}", json=body)
                said = await answer.json()
                assert (answer.status, said["status"]) == (status, status), (path, body, said)
                assert reason in said["reason"]
            saved = await (await browser.post("/api/v1/cameras/cam0/save", json={})).json()
            assert saved["ok"]
            number = saved["data"]["ids"][0]
            assert (await browser.post(f"/api/v1/library/{number}/protect", json={})).status == 200
            kept = await browser.post(f"/api/v1/library/{number}/delete", json={})
            assert (kept.status, f"unprotect {number} first" in (await kept.json())["reason"]) == (409, True)

    folder = tmp_path / "streamer"
    folder.mkdir()
    feed = Feed(service.settings, "cam0", geometry("yuv420p", 64, 48), 8)
    try:
        feed.publish(3)
        run(test())
    finally:
        feed.close()
