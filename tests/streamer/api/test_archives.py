"""Archives over HTTP: what is in one, one file, all of them as a zip."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile

import pytest

from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry, archive
from shmcam.library.errors import NothingThere
from shmcam.library.manifest import Span
from shmcam.library.sidecar import MANIFEST
from tests.streamer.harness import browsing, running

UTC = 1_700_000_000_000_000_000
BIG = bytes(range(256)) * 20_000
"""More than one piece of a zip."""


def make_archive(folder, name="trial_7", span=None):
    """An archive of a clip of a session with a label, and perhaps of a picture without one."""
    settings = Settings.load(folder / "config.toml", environ={})
    session = settings.paths.recordings / "session_20231114_221320_trial"
    session.mkdir(parents=True)
    settings.paths.captures.mkdir()
    files = {session / "cam0_64x48_30.0fps_20231114_221320_trial.mp4": BIG, settings.paths.captures / "a b.jpg": b"jpg"}
    with Catalogue.of(settings) as catalogue:
        for number, (path, data) in enumerate(files.items()):
            path.write_bytes(data)
            kind, label = ("picture", "") if number else ("session", "trial")
            catalogue.add(Entry(kind=kind, camera="cam0", path=path, started_utc_ns=UTC + number * 10**9, label=label))
        for wrong in ({"label": "other"}, {"session": "session_x"}):
            with pytest.raises(NothingThere, match=r"holds nothing of that (label other|session session_x)"):
                archive.build(catalogue, settings.paths.archives, name, Span(**wrong))
        archive.build(catalogue, settings.paths.archives, name, span or Span(), config="[camera]\n")
    return settings.paths.archives / name


@pytest.mark.parametrize(
    ("span", "count"), [({}, 2), ({"label": "trial"}, 1), ({"session": "session_20231114_221320_trial"}, 1)]
)
def test_an_archive_is_listed_and_fetched_file_by_file_and_as_a_zip(tmp_path, span, count):
    async def check():
        async with running(tmp_path) as server, browsing(server) as browser:
            name = "t" * 64
            folder = make_archive(tmp_path, name, Span(**span))
            contents = await (await browser.get(f"/api/v1/archives/{name}")).json()
            listed = [file["file"] for file in contents["files"] if file["sha256"]]
            assert sum(not file.endswith(".json") for file in listed) == count
            assert [file["file"] for file in contents["files"] if not file["sha256"]] == [MANIFEST, "config.toml"]
            for file in contents["files"]:
                answer = await browser.get(f"/api/v1/archives/{name}/file", params={"file": file["file"]})
                data = await answer.read()
                assert data == (folder / file["file"]).read_bytes() and len(data) == file["bytes"]
                assert file["sha256"] in ("", hashlib.sha256(data).hexdigest())
            answer = await browser.get(f"/api/v1/archives/{name}/zip")
            assert answer.content_type == "application/zip" and f"{name}.zip" in answer.headers["Content-Disposition"]
            with zipfile.ZipFile(io.BytesIO(await answer.read())) as whole:
                assert whole.testzip() is None
                assert {name: whole.getinfo(name).file_size for name in whole.namelist()} == {
                    f"{name}/{file['file']}": file["bytes"] for file in contents["files"]
                }
            assert (await browser.post(f"/api/v1/archives/{name}/verify", json={})).status == 200
            assert (server.hub.asked[-1].action, server.hub.asked[-1].name) == ("verify", name)

    asyncio.run(check())


def test_nothing_outside_an_archive_is_sent(tmp_path):
    async def check():
        async with running(tmp_path) as server, browsing(server) as browser:
            folder = make_archive(tmp_path)
            (tmp_path / "secret.jpg").write_bytes(b"secret")
            (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
            manifest = json.loads((folder / MANIFEST).read_text())
            more = [{**manifest["files"][0], "file": file} for file in ("../../secret.jpg", "link.jpg", "/etc/passwd")]
            (folder / MANIFEST).write_text(json.dumps({**manifest, "files": manifest["files"] + more}))
            for file in ("../../secret.jpg", "link.jpg", "/etc/passwd", "", "nothing.jpg", "."):
                answer = await browser.get("/api/v1/archives/trial_7/file", params={"file": file})
                assert answer.status == 404, file
            with zipfile.ZipFile(io.BytesIO(await (await browser.get("/api/v1/archives/trial_7/zip")).read())) as whole:
                assert len(whole.namelist()) == len(manifest["files"]) + 2
            for name in ("nothing", "%2e%2e", "x" * 65):
                assert (await browser.get(f"/api/v1/archives/{name}/zip")).status == 404
        async with running(tmp_path, "[http]\ndownloads = false\n") as server, browsing(server) as browser:
            assert (await browser.get("/api/v1/archives/trial_7")).status == 200
            for what in ("zip", "file?file=config.toml"):
                assert (await browser.get(f"/api/v1/archives/trial_7/{what}")).status == 403

    asyncio.run(check())


@pytest.mark.parametrize(
    ("config", "shown"), [("[camera]\n", True), ('[cameras.c.camera]\nurl = "rtsp://a:b@c"\n', False), ("[", False)]
)
def test_the_configuration_in_an_archive_is_for_owners_and_only_masked(tmp_path, config, shown):
    """A viewer, who may not read the settings, could read them in any archive; old ones held a camera's password."""

    async def find_files(browser, token):
        headers = {"Authorization": f"Bearer {token}"}
        contents = await (await browser.get("/api/v1/archives/trial_7", headers=headers)).json()
        answer = await browser.get("/api/v1/archives/trial_7/file?file=config.toml", headers=headers)
        answer_of_zip = await browser.get("/api/v1/archives/trial_7/zip", headers=headers)
        with zipfile.ZipFile(io.BytesIO(await answer_of_zip.read())) as whole:
            zipped = {name.removeprefix("trial_7/") for name in whole.namelist()}
        assert zipped == {file["file"] for file in contents["files"]} and MANIFEST in zipped
        assert (answer.status == 200) is ("config.toml" in zipped)
        return zipped

    async def check():
        text = f'[http]\ntoken = "{"o" * 24}"\nviewer_token = "{"v" * 24}"\n'
        async with running(tmp_path, text) as server, browsing(server) as browser:
            folder = make_archive(tmp_path)
            (folder / "config.toml").write_text(config)
            assert ("config.toml" in await find_files(browser, "o" * 24)) is shown
            assert "config.toml" not in await find_files(browser, "v" * 24)

    asyncio.run(check())
