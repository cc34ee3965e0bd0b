"""The REST API: its description, every endpoint fuzzed against it, and the topics in detail."""

import ast
import asyncio
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from msgspec.structs import replace

from shmcam.control.messages import Reply, Save, Set, Status, Watch
from shmcam.library import Entry, LibraryError
from shmcam.library.database import Database
from shmcam.library.errors import NotWritable
from shmcam.runtime.stop import Stop
from streamer.api.endpoint import HTTP_STATUS
from streamer.api.library import find_timeline
from streamer.api.openapi import ENDPOINTS, describe
from streamer.monitoring.system_load import SystemLoad, process_health_of
from tests.machine import Deadline
from tests.streamer.api.test_archives import make_archive
from tests.streamer.harness import Threaded, browsing, eventually, raw, running
from tests.streamer.pictures.test_caption import Alone, Line
from tests.streamer.pictures.test_stream import run

schemathesis = pytest.importorskip("schemathesis")
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

# ---- the description


def test_every_endpoint_is_described_with_its_types():
    described = describe(ENDPOINTS)
    assert described["openapi"] == "3.1.0"
    for endpoint in ENDPOINTS:
        operation = described["paths"]["/api/v1" + endpoint.path][endpoint.method.lower()]
        assert operation["summary"], endpoint.path
        in_path = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert in_path == {part.strip("{}") for part in endpoint.path.split("/") if part.startswith("{")}
        assert {"200", "400", "401", "404"} <= set(operation["responses"])
    identities = [op["operationId"] for path in described["paths"].values() for op in path.values()]
    assert len(identities) == len(set(identities))


def test_fields_are_described_in_words():
    """The description is made from the commands' own types: unit, range and meaning come along."""
    save = describe(ENDPOINTS)["components"]["schemas"]["Save"]
    assert save["properties"]["seconds_ago"]["maximum"] == 3600
    assert "age of the wanted frame" in json.dumps(save)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Threaded(tmp_path_factory.mktemp("api"), fps=30.0) as threaded:
        yield threaded


SCHEMA = schemathesis.openapi.from_dict(describe(ENDPOINTS))
OPERATIONS = [result.ok() for result in SCHEMA.get_all_operations()]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_schemathesis_finds_no_answer_that_is_not_described(served, operation):
    """Generated requests, right and wrong; every answer must have a status, type and body that the page promises."""

    @settings(
        max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate], database=None,
        suppress_health_check=list(HealthCheck), derandomize=True,
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def check(case):
        # A time such as 2026-99-99 keeps to the schema and is refused all the same: that check is not for us.
        case.call_and_validate(base_url=served.server.url, timeout=20, excluded_checks=[positive_data_acceptance])

    check()


# ---- status


def test_the_overview_says_what_every_process_does(tmp_path):
    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            from streamer.loop import measure_load

            rows = [
                {"program": "recorder", "camera": "cam0", "pid": 7, "state": "recording", "fps": 30.0, "lag": 1,
                 "figures": {"file": "/r/clip.mp4", "frames": 90, "drops": 0, "behind_s": 0.04}},
                {"program": "analyzer", "camera": "cam0", "pid": 0, "state": "missing", "reason": "not connected"},
            ]  # fmt: skip
            server.hub.replies[Status] = Reply(data={"processes": rows, "cameras": []})
            await measure_load(server.context)
            await eventually(lambda: server.camera.number > 3)
            over = await (await browser.get("/api/v1/overview")).json()
            assert over["recordings"]["cam0"] == {
                "state": "recording", "file": "clip.mp4", "frames": 90, "drops": 0, "behind_s": 0.04,
                "since_utc": "", "reason": "",
            }  # fmt: skip
            assert over["health"]["ready"] is False
            assert over["health"]["reasons"] == ["analyzer: missing, not connected"]
            assert over["cameras"][0]["live"] is True
            health = await browser.get("/healthz")
            assert (health.status, (await health.json())["reasons"]) == (503, ["analyzer: missing, not connected"])
            server.hub.replies[Status] = Reply(data={"processes": rows[:1], "cameras": []})
            await measure_load(server.context)
            assert (await browser.get("/healthz")).status == 200
            server.hub.replies[Status] = Reply(ok=False, status="no_hub", text="ERROR: no hub")
            await measure_load(server.context)
            reasons = (await (await browser.get("/healthz")).json())["reasons"]
            assert reasons == ["hub: does not answer"]

    run(test())


def test_a_recorder_without_room_is_not_ready_and_a_stopped_one_is_somebodys_wish(tmp_path):
    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            from streamer.loop import measure_load

            await eventually(lambda: server.camera.number > 3)
            for state, reason, found in (
                ("waiting", "disk full: 1.5 MB short", ["recorder: waiting, disk full: 1.5 MB short"]),
                ("waiting", "", []),
                ("STOPPED", "", []),
                ("FATAL", "exited too quickly", ["recorder: FATAL, exited too quickly"]),
            ):
                row = {"program": "recorder", "camera": "cam0", "state": state, "reason": reason}
                server.hub.replies[Status] = Reply(data={"processes": [row], "cameras": []})
                await measure_load(server.context)
                assert (await (await browser.get("/healthz")).json())["reasons"] == found

    run(test())


@pytest.mark.parametrize(("free", "low"), [(40 * 10**9, False), (480 * 10**6, False), (240 * 10**6, True), (0, True)])
def test_a_disk_that_retention_keeps_full_is_as_it_should_be(tmp_path, monkeypatch, free, low):
    """Rolling clips fill a 64 GB card up to library.free_reserve_mb (500), and then every day."""
    disk = SimpleNamespace(f_blocks=64 * 10**9, f_bavail=free, f_frsize=1, f_files=0, f_favail=0)
    monkeypatch.setattr("shmcam.library.disks.disk_space.os.statvfs", lambda _: disk)

    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            await eventually(lambda: server.camera.number > 3)
            said = await (await browser.get("/api/v1/health")).json()
            assert (said["disk"]["reserve_bytes"], "disk" in " ".join(said["reasons"])) == (500_000_000, low)

    run(test())


def test_a_camera_that_stopped_is_not_ready_and_says_since_when(tmp_path):
    async def test():
        async with running(tmp_path, "[mjpeg_server]\nstale_after_s = 0.3\n") as server, browsing(server) as browser:
            camera = server.camera
            first = await (await browser.get("/healthz")).json()
            assert "cam0: no picture yet" in first["reasons"]
            camera.publish()
            assert (await (await browser.get("/api/v1/cameras/cam0")).json())["live"] is True
            deadline = Deadline(10)
            while "cam0: last picture " not in (said := await (await browser.get("/healthz")).text()):
                assert not deadline.has_passed(), deadline
                await asyncio.sleep(0.02)
            assert re.search(r"cam0: last picture 0\.[3-9]", said), said

    run(test())


PROMISED = (
    *("shmcam_camera_fps", "shmcam_camera_dropped", "shmcam_camera_exposure_seconds", "shmcam_camera_scene_brightness"),
    *("shmcam_ring_head", "shmcam_reader_lag_frames", "shmcam_encodes", "shmcam_encode_seconds", "shmcam_viewers"),
    *("shmcam_sent_bytes", "shmcam_recorder_lag_seconds", "shmcam_disk_free_bytes", "shmcam_camera_viewers"),
    *("shmcam_recording", "shmcam_ready", "shmcam_process_up"),
    *("shmcam_recorder_encoded", "shmcam_recorder_unwritten", "shmcam_process_trouble", "shmcam_process_figure"),
)


def test_metrics_are_what_prometheus_reads(tmp_path):
    from prometheus_client.parser import text_string_to_metric_families

    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            await eventually(lambda: server.camera.number > 2)
            await browser.get("/snapshot.jpg")
            text = await (await browser.get("/metrics")).text()
            families = {family.name: family for family in text_string_to_metric_families(text)}
            assert families["shmcam_encodes"].samples[0].labels == {"camera": "cam0"}
            assert families["shmcam_encodes"].samples[0].value >= 1
            assert families["shmcam_camera_frame_id"].samples[0].value > 1
            assert families["shmcam_disk_free_bytes"].samples[0].value > 0
            assert families["shmcam_ready"].samples[0].value == 0, "no hub"
            assert set(PROMISED) <= set(families)
            assert all(family.documentation for family in families.values())

    run(test())


def test_the_counts_of_hooks_are_metrics_and_nonsense_is_zero(tmp_path):
    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            from streamer.loop import measure_load

            counts = {"delivered": 7, "waiting": 2, "given_up": 1, "dropped": 0, "limited": "x"}
            rows = [
                {"program": "hooks", "state": "running", "figures": {"hooks": {"bell": counts, "odd": None}}},
                {"program": "other", "state": "running", "figures": {"hooks": {"not": counts}}},
            ]
            server.hub.replies[Status] = Reply(data={"processes": rows, "cameras": []})
            await measure_load(server.context)
            text = await (await browser.get("/metrics")).text()
            assert 'shmcam_hook_events_total{hook="bell",result="delivered"} 7.0' in text
            assert 'shmcam_hook_events_total{hook="bell",result="limited"} 0.0' in text
            assert 'shmcam_hook_waiting{hook="bell"} 2.0' in text
            assert 'hook="odd",result="delivered"} 0.0' in text and "not" not in re.findall(r'hook="(\w+)"', text)

    run(test())


def test_every_process_has_its_numbers_among_the_metrics(tmp_path):
    """Those of optional programs, too, which this program does not know."""
    from prometheus_client.parser import text_string_to_metric_families

    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            figures = {"waiting": 12, "speed": 1.5, "file": "a.mp4", "odd": float("nan"), "none": None, "on": True}
            from streamer.loop import measure_load

            rows = [{"program": "upload", "pid": 1, "state": "retrying", "reason": "no network", "figures": figures}]
            server.hub.replies[Status] = Reply(status="status", text="", data={"processes": rows})
            await measure_load(server.context)
            text = await (await browser.get("/metrics")).text()
            families = {family.name: family for family in text_string_to_metric_families(text)}
            samples = families["shmcam_process_figure"].samples
            assert {one.labels["figure"]: one.value for one in samples} == {"waiting": 12, "speed": 1.5, "on": 1}
            assert {one.labels["program"] for one in samples} == {"upload"}
            assert [one.value for one in families["shmcam_process_trouble"].samples] == [1]
            reasons = (await (await browser.get("/healthz")).json())["reasons"]
            assert not any("upload" in reason for reason in reasons), (
                "a store that is away is no trouble of the service"
            )

    run(test())


def test_the_grafana_dashboard_asks_only_for_metrics_there_are(tmp_path):
    dashboard = (Path(__file__).parents[3] / "docs/grafana.json").read_text()
    asked = set(re.findall(r"shmcam_[a-z0-9_]+", dashboard))

    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            text = await (await browser.get("/metrics")).text()
            known = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
            assert asked
            assert asked <= known

    run(test())


# ---- actions


def test_a_button_is_one_command_with_its_fields(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            server.hub.reply = Reply(status="saved", text="Saved /c/a.jpg", data={"path": "/c/a.jpg"})
            answer = await browser.post("/api/v1/cameras/cam0/save", json={"formats": ["png"], "label": "trial_7"})
            assert await answer.json() == {
                "ok": True,
                "status": "saved",
                "text": "Saved /c/a.jpg",
                "data": {"path": "/c/a.jpg"},
            }
            assert server.hub.asked == [Save(camera="cam0", formats=("png",), label="trial_7")]

    run(test())


def words_of_refusal() -> set[str]:
    """Every status that `error(text, status)` or `Reply(ok=…, status=…)` gives anywhere, read from the source."""
    found: set[str] = set()
    for package in ("analyzer", "capture", "shmcam", "exporter", "recorder", "streamer"):
        for path in (Path(__file__).parents[3] / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                    continue
                named = {one.arg: one.value for one in node.keywords}
                given = node.args[1:] if node.func.id == "error" else ()
                if node.func.id == "Reply" and "ok" in named and ast.unparse(named["ok"]) != "True":
                    given = (named["status"],) if not isinstance(named["status"], ast.Subscript) else ()
                found |= {
                    one.value
                    for value in given
                    for one in ast.walk(value)
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                }
    return found


NOT_FOR_US = {"bad_message", "unknown_command", "unsendable", "library", "stream_done", "no_supervisord"}
"""Answers to what no endpoint asks."""


def test_every_word_of_refusal_has_its_status():
    assert words_of_refusal() - NOT_FOR_US == set(HTTP_STATUS)


def test_a_refusal_keeps_its_reason_and_gets_a_fitting_status(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            for status, http in HTTP_STATUS.items():
                server.hub.reply = Reply(ok=False, status=status, text="ERROR: because of that")
                answer = await browser.post("/api/v1/cameras/cam0/save", json={})
                said = await answer.json()
                if http == 200:
                    assert (answer.status, said["ok"], said["text"]) == (200, False, "ERROR: because of that")
                else:
                    assert (answer.status, said) == (http, {"status": http, "reason": "because of that"}), status

    run(test())


@pytest.mark.parametrize(
    "path", ["/library/7/protect", "/library/7/delete", "/cameras/cam9/save", "/cameras/cam9/night"]
)
def test_what_is_not_there_is_not_asked_for(tmp_path, path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            answer = await browser.post(f"/api/v1{path}", json={})
            assert (answer.status, server.hub.asked) == (404, [])
            reason = (await answer.json())["reason"]
            assert "no entry 7" in reason or "no camera 'cam9'" in reason

    run(test())


HOOK = """[http]
token = "SECRET-0123456789abcdef"
[hooks.actions.phone]
events = ["motion_began"]
webhook = "https://hooks.example/SECRET-SECRET"
secret = "whsec_SECRET-SECRET"
headers = { Authorization = "Bearer SECRET-SECRET" }
[cameras.cam0]
url = "rtsp://a:SECRET-SECRET@camera.example/"
"""


def test_settings_are_shown_without_their_secrets_while_the_hub_is_away(tmp_path):
    """Those of the hooks stood in the answer as they are in config.toml: they are in the rows of a table."""

    async def test():
        async with running(tmp_path, HOOK) as server, browsing(server) as browser:
            server.hub.reply = Reply(ok=False, status="no_hub", text="ERROR: no hub")
            owner = {"Authorization": "Bearer SECRET-0123456789abcdef"}
            text = await (await browser.get("/api/v1/settings", headers=owner)).text()
            assert "SECRET-" not in text
            shown = {one["key"]: one["value"] for one in json.loads(text)["settings"]}
            assert (shown["http.token"], shown["http.password"]) == ("***", "")
            phone = shown["hooks.actions"]["phone"]
            assert (phone["webhook"], phone["secret"], phone["headers"]) == ("***", "***", "***")
            assert phone["events"] == ["motion_began"]

    run(test())


def test_settings_are_shown_with_their_meaning_and_changed_through_the_hub(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            found = (await (await browser.get("/api/v1/settings")).json())["settings"]
            fps = next(one for one in found if one["key"] == "mjpeg_server.fps")
            assert (fps["unit"], fps["apply"], fps["type"], fps["maximum"]) == ("fps", "live", "number", 240)
            assert fps["help"]
            token = next(one for one in found if one["key"] == "http.token")
            assert (token["secret"], token["apply"]) == (True, "file")
            await browser.post("/api/v1/settings", json={"changes": {"mjpeg_server.fps": 10}, "save": True})
            assert server.hub.asked[-1] == Set(changes={"mjpeg_server.fps": 10}, save=True)

    run(test())


def test_a_live_setting_takes_effect_at_once(tmp_path, caplog):
    async def test():
        async with running(tmp_path) as server:
            line, stop, loop = Line(), Stop(), asyncio.get_running_loop()
            link = Alone(line, tmp_path / "no.sock", stop)
            link.begin(server.context, loop)
            line.change("mjpeg_server.fps", 7.0)
            await eventually(lambda: server.context.mjpeg.fps == 7.0)
            line.change("mjpeg_server.fps", "fast")
            await eventually(lambda: "setting refused key=mjpeg_server.fps" in caplog.text)
            assert server.context.mjpeg.fps == 7.0, "what cannot be is ignored and logged"
            loop.remove_reader(line.fileno())
            line.close()

    run(test())


def test_live_video_asks_the_recorder_while_somebody_watches(tmp_path):
    from streamer.h264.routes import request_live_packets

    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            asking = asyncio.create_task(request_live_packets(server.context))
            answer = asyncio.create_task(browser.get("/live.mp4"))
            await eventually(lambda: any(isinstance(one, Watch) for one in server.hub.asked))
            refused = await answer
            assert refused.status == 503, "no recorder came"
            assert (await refused.json())["reason"].endswith("MJPEG is at /cam/cam0/stream")
            assert server.context.viewer_slots.streams == 0
            asking.cancel()

    run(test())


# ---- controls


def test_a_cameras_controls_are_shown_with_range_and_what_holds_now(tmp_path):
    async def test():
        async with running(tmp_path, "[camera.controls]\nBrightness = 0.1\n") as server, browsing(server) as browser:
            server.camera.publish()
            meta = server.camera.feed.status.meta._replace(exposure_us=20_000, analogue_gain=2.5)
            server.camera.feed.status = replace(server.camera.feed.status, meta=meta)
            found = await (await browser.get("/api/v1/cameras/cam0/controls")).json()
            controls = {one["name"]: one for one in found["controls"]}
            assert {"ExposureTime", "AnalogueGain", "AwbEnable", "ColourGains", "LensPosition"} <= set(controls)
            brightness, exposure, white = (controls[name] for name in ("Brightness", "ExposureTime", "AwbEnable"))
            assert (brightness["value"], brightness["minimum"], brightness["maximum"]) == (0.1, -1, 1)
            assert (exposure["value"], exposure["now"], exposure["unit"]) == (None, 20_000, "µs")
            assert controls["AnalogueGain"]["now"] == 2.5
            assert (white["type"], white["key"]) == ("true or false", "camera.controls.AwbEnable")
            assert controls["gain"]["key"] == "camera.gain", "still mode's own"
            assert all(one["help"] for one in controls.values())
            assert (await browser.get("/api/v1/cameras/cam9/controls")).status == 404

    run(test())


def test_controls_are_turned_for_one_camera_and_given_back(tmp_path):
    async def test():
        two = {"text": "[cameras.cam0]\n[cameras.cam1]\n", "cameras": ("cam0", "cam1")}
        async with running(tmp_path, **two) as server, browsing(server) as browser:
            path = "/api/v1/cameras/cam1/controls"
            await browser.post(path, json={"changes": {"Contrast": 1.2, "framerate": 10}, "save": True})
            changes = {"cameras.cam1.controls.Contrast": 1.2, "cameras.cam1.framerate": 10}
            assert server.hub.asked[-1] == Set(changes=changes, save=True)
            await browser.post(path, json={"changes": {"Contrast": None}})
            assert server.hub.asked[-1] == Set(changes={"cameras.cam1.controls.Contrast": None})
            wrong = await browser.post(path, json={"changes": {"Contrats": 1}})
            assert (wrong.status, (await wrong.json())["reason"]) == (
                400,
                "no control 'Contrats'; did you mean Contrast?",
            )
            assert (await browser.post(path, json={"changes": {"source": "file"}})).status == 400, "no control"
            assert len(server.hub.asked) == 2

    run(test())


def test_the_only_camera_is_set_where_its_table_is(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            await browser.post("/api/v1/cameras/cam0/controls", json={"changes": {"Brightness": 0.2}})
            assert server.hub.asked[-1] == Set(changes={"camera.controls.Brightness": 0.2})

    run(test())


# ---- library


def saved(server, name: str, kind: str = "picture", body: bytes = b"") -> Entry:
    path = server.context.settings.paths.captures / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body or cv2.imencode(".jpg", np.full((480, 640, 3), 80, np.uint8))[1].tobytes())
    return server.context.catalogue.add(Entry(kind=kind, camera="cam0", path=path, started_utc_ns=time.time_ns()))


def test_timelines_are_made_one_after_the_other(tmp_path, monkeypatch):
    """Ten open pages that show a year would take 370 MB. Another server of this process has its own turn."""
    made, running_now = [], []

    def find(context, query):
        running_now.append(query)
        time.sleep(0.02)  # the others come meanwhile
        made.append(len(running_now))
        running_now.pop()
        return find_timeline(context, query)

    monkeypatch.setattr("streamer.api.library.find_timeline", find)

    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            answers = await asyncio.gather(*(browser.get("/api/v1/library/timeline") for _ in range(10)))
            assert {answer.status for answer in answers} == {200}

    for _ in range(2):
        asyncio.run(test())
    assert made == [1] * 20


def test_the_library_lists_shows_and_fetches(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            entries = [saved(server, f"{n}.jpg") for n in range(3)]
            found = await (await browser.get("/api/v1/library", params={"group": "pictures", "limit": 2})).json()
            assert [row["id"] for row in found["rows"]] == [entries[2].id, entries[1].id], "newest first"
            page = {"limit": 2, "before": entries[1].id}
            older = await (await browser.get("/api/v1/library", params=page)).json()
            assert [row["id"] for row in older["rows"]] == [entries[0].id], "the next page"
            searched = {"text": "jpg", "order": "oldest", "limit": 2}
            first = await (await browser.get("/api/v1/library", params=searched)).json()
            last = await (await browser.get("/api/v1/library", params={**searched, "cursor": first["next"]})).json()
            assert [row["name"] for row in first["rows"] + last["rows"]] == ["0.jpg", "1.jpg", "2.jpg"]
            assert last["next"] == ""
            (line,) = (await (await browser.get("/api/v1/library/timeline")).json())["cameras"]
            assert sum(cell["pictures"] for cell in line["cells"]) == 3
            for bad in ("since=never", "step_s=1&since=7d", "step_s=0", "camera=%2e%2e"):
                assert (await browser.get(f"/api/v1/library/timeline?{bad}")).status == 400
            assert (await browser.get("/api/v1/library?cursor=x")).status == 400
            assert found["totals"]["pictures"]["files"] == 3
            assert found["rows"][0]["name"] == "2.jpg"
            assert str(tmp_path) not in json.dumps(found), "no path of the server"
            one = f"/api/v1/library/{entries[0].id}"
            assert (await (await browser.get(one)).json())["media"] == "image/jpeg"
            whole = await (await browser.get(f"{one}/file")).read()
            assert whole == entries[0].path.read_bytes()
            part = await browser.get(f"{one}/file", headers={"Range": "bytes=10-19"})
            assert (part.status, await part.read()) == (206, whole[10:20])
            assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
            assert (await browser.get(f"{one}/file", headers={"Range": "bytes=999999999-"})).status == 416
            small = cv2.imdecode(np.frombuffer(await (await browser.get(f"{one}/thumbnail")).read(), np.uint8), 1)
            assert small.shape == (240, 320, 3)

    run(test())


@pytest.mark.parametrize("path", ["library/1/file", "archives/trial_7/file?file=config.toml", "cameras/cam0/recording"])
def test_a_download_goes_on_only_where_it_is_the_same_file(tmp_path, path):
    """If-Range with an ETag was ignored: a player or browser joined the parts of two clips, without an error."""

    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            archive, growing = make_archive(tmp_path), tmp_path / "recordings" / "a.mp4.part"
            files = [archive / "config.toml", growing, *(tmp_path / "recordings").rglob("*.mp4")]
            figures = {"file": str(growing).removesuffix(".part")}
            process = process_health_of({"program": "recorder", "camera": "cam0", "figures": figures})
            server.context.system_load = SystemLoad(hub=True, processes=(process,))

            async def continues(condition: str) -> bool:
                answer = await browser.get(f"/api/v1/{path}", headers={"Range": "bytes=4-", "If-Range": condition})
                data, whole = await answer.read(), files[0].read_bytes()
                assert data == (whole[4:] if answer.status == 206 else whole)
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                return answer.status == 206

            tags = []
            for data in (b"# 0123456789", b"# 0123456789 and another"):
                for file in files:
                    file.write_bytes(data)
                headers = (await browser.get(f"/api/v1/{path}")).headers
                tags.append(headers["ETag"])
                assert await continues(tags[-1]) and await continues(headers["Last-Modified"])
                for other in (f"W/{tags[-1]}", tags[-1].strip('"'), f'{tags[-1]}, "x"', "*", "yesterday", '"x"'):
                    assert not await continues(other), other
                assert not await continues("Sat, 01 Jan 2000 00:00:00 GMT")
            assert not await continues(tags[0])
            strange = 'Host: localhost\r\nConnection: close\r\nRange: bytes=4-\r\nIf-Range: "x"\r\nOther: \xff\r\n'
            answer = await raw(server.port, f"GET /api/v1/{path} HTTP/1.1\r\n{strange}\r\n".encode("latin-1"))
            assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(data)

    run(test())


def test_a_clip_has_a_thumbnail_and_a_broken_one_has_none(tmp_path):
    import av

    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            film = tmp_path / "captures" / "film.mp4"
            film.parent.mkdir()
            with av.open(str(film), "w") as container:
                stream = container.add_stream("libx264", rate=10, width=640, height=360, pix_fmt="yuv420p")
                for _ in range(3):
                    frame = av.VideoFrame.from_ndarray(np.full((540, 640), 120, np.uint8), "yuv420p")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
            good = server.context.catalogue.add(Entry(kind="clip", camera="cam0", path=film, started_utc_ns=1))
            bad = saved(server, "broken.mp4", "clip", b"not a film")
            small = await browser.get(f"/api/v1/library/{good.id}/thumbnail")
            assert (small.status, small.content_type) == (200, "image/jpeg")
            assert (await browser.get(f"/api/v1/library/{bad.id}/thumbnail")).status == 404

    run(test())


def test_a_file_that_is_gone_or_has_a_strange_name_is_no_error(tmp_path, caplog):
    """The row may live longer than its file, and a rebuilt library may hold names that are not ours."""

    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            gone, strange = saved(server, "gone.jpg"), saved(server, 'a"b\r\nX-Evil: 1 ü.jpg')
            gone.path.unlink()
            for what in ("file", "thumbnail"):
                assert (await browser.get(f"/api/v1/library/{gone.id}/{what}")).status == 404
                answer = await browser.get(f"/api/v1/library/{strange.id}/{what}")
                assert (answer.status, "X-Evil" in answer.headers) == (200, False)
            said = (await browser.get(f"/api/v1/library/{strange.id}/file")).headers["Content-Disposition"]
            assert said == 'inline; filename="a_b__X-Evil: 1 _.jpg"'

    run(test())
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


@pytest.mark.parametrize("problem", [NotWritable("disk I/O error"), LibraryError("held"), OSError("away")])
def test_a_library_that_cannot_be_read_says_so(tmp_path, monkeypatch, problem):
    def broken(*_given, **_named):
        raise problem

    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            saved(server, "a.jpg")
            monkeypatch.setattr(Database, "read", broken)
            for path in ("", "/1", "/1/file", "/1/thumbnail"):
                answer = await browser.get(f"/api/v1/library{path}")
                assert (answer.status, str(problem) in (await answer.json())["reason"]) == (503, True), path

    run(test())


def test_nothing_outside_our_folders_is_handed_out(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            secret = tmp_path / "private.jpg"
            secret.write_bytes(b"top secret")
            outside = server.context.catalogue.add(Entry(kind="picture", camera="cam0", path=secret, started_utc_ns=1))
            link = tmp_path / "captures" / "link.jpg"
            link.parent.mkdir()
            link.symlink_to(secret)
            planted = server.context.catalogue.add(Entry(kind="picture", camera="cam0", path=link, started_utc_ns=2))
            (tmp_path / "captures" / "notes.txt").write_text("top secret")
            text = saved(server, "notes.txt", body=b"top secret")
            for entry in (outside, planted, text):
                for what in ("file", "thumbnail"):
                    answer = await browser.get(f"/api/v1/library/{entry.id}/{what}")
                    assert answer.status == 404, entry.path
                    assert b"top secret" not in await answer.read()

    run(test())


@pytest.mark.parametrize(
    "number", ["0", "-1", "abc", "1e3", "%2e%2e", "..%2f..%2fetc%2fpasswd", "1%00", "99999999999999999999", "１"]
)
def test_rows_are_named_by_number_alone(tmp_path, number):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            saved(server, "a.jpg")
            from yarl import URL

            answer = await browser.get(URL(f"/api/v1/library/{number}/file", encoded=True))
            assert answer.status == (404 if number.isascii() else 400)
            assert (await answer.json())["status"] == answer.status

    run(test())


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 200),  # nobody but this machine
        ('bind = "0.0.0.0"\npassword = "correct horse"', 200),
        ('bind = "0.0.0.0"\ninsecure_no_auth = true', 403),
        ('bind = "0.0.0.0"\ninsecure_no_auth = true\ndownloads = true', 200),
    ],
)
def test_strangers_who_are_let_in_get_no_files_unless_it_is_said(tmp_path, text, status):
    async def test():
        async with running(tmp_path, f"[http]\n{text}\n") as server, browsing(server) as browser:
            entry = saved(server, "a.jpg")
            more = {"headers": {"Authorization": "Bearer correct horse"}} if "password" in text else {}
            for what in ("file", "thumbnail"):
                assert (await browser.get(f"/api/v1/library/{entry.id}/{what}", **more)).status == status

    run(test())


def test_downloads_can_be_switched_off(tmp_path):
    async def test():
        async with running(tmp_path, "[http]\ndownloads = false\n") as server, browsing(server) as browser:
            entry = saved(server, "a.jpg")
            answer = await browser.get(f"/api/v1/library/{entry.id}/file")
            assert (answer.status, (await answer.json())["reason"]) == (
                403,
                "http.downloads is off for you",
            )
            assert (await browser.get("/api/v1/library")).status == 200

    run(test())
