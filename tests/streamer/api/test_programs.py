"""The restart of programs: which of them wait for a changed setting, and who may be named."""

import asyncio

import pytest

from shmcam.control.messages import Reply
from shmcam.runtime.supervisord import Program
from streamer.api.programs import find_waiting, restart_programs
from streamer.monitoring.health import CameraHealth, DiskHealth, ProcessHealth, find_reasons
from tests.streamer.harness import browsing, running


def process(program, camera="", pid=1, state="running", reason=""):
    return ProcessHealth(program, camera, pid, state, reason, 1.0, 0, 0, 1, 0, {})


ALL = [
    process("capture", "cam0", 10),
    process("recorder", "cam0", 11),
    process("capture-cam1", "cam1", 12),
    process("recorder-cam1", "cam1", 13),
    process("exporter", "", 14),
    process("motion_log", "", 15),
]


@pytest.mark.parametrize(
    ("path", "roles", "programs"),
    [
        ("camera.width", ["capture"], ["capture", "capture-cam1"]),
        ("cameras.cam1.width", ["capture"], ["capture-cam1"]),
        ("cameras.cam0.recorder.mode", ["recorder"], ["recorder"]),
        ("cameras.cam1.export.base_dir", ["exporter"], ["exporter"]),
        ("motion_log.x", ["motion_log"], ["motion_log"]),
        ("library.path", ["all"], [row.program for row in ALL]),
        ("nothing.x", ["absent"], []),
    ],
)
def test_the_programs_that_read_a_changed_key_wait_until_they_are_restarted(path, roles, programs):
    waiting = {path: {"roles": roles, "changed_utc_s": 100.0}}
    before = {row.pid: 50.0 for row in ALL}
    assert find_waiting(waiting, ALL, before) == ({path: programs} if programs else {})
    assert find_waiting(waiting, ALL, {**before, 12: 101.0, 13: 101.0}).get(path, []) == [
        name for name in programs if not name.endswith("cam1")
    ]
    assert find_waiting(waiting, ALL, {}) == {}, "processes that are gone wait for nothing"


def test_a_camera_without_pictures_says_what_its_capture_process_said():
    disk = DiskHealth("/", 10**12, 10**12, 0)
    cameras = {"cam1": CameraHealth(False, None, -1, 0.0)}
    processes = [process("capture-cam1", "cam1", 1, "waiting", "no camera: /dev/video7 does not exist")]
    reasons = find_reasons(cameras, disk, hub=True, processes=processes)
    assert reasons == ["cam1: no picture yet: no camera: /dev/video7 does not exist"]


def test_an_optional_program_that_waits_for_somebody_elses_server_is_no_trouble_of_the_service():
    """A container whose health check fails is restarted, and with it the recording."""
    disk, cameras = DiskHealth("/", 10**12, 10**12, 0), {"cam0": CameraHealth(True, 0.1, 1, 30.0)}
    waiting = [process(name, "", 1, "waiting", "connection refused") for name in ("mqtt", "upload", "exporter")]
    assert find_reasons(cameras, disk, hub=True, processes=waiting) == ["exporter: waiting, connection refused"]


def test_without_supervisord_nothing_can_be_restarted_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("SUPERVISOR_SERVER_URL", raising=False)

    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            server.hub.reply = Reply(data={"waiting": {}})
            for path, status in (("programs/capture/restart", 409), ("programs/..%2f/start", 404), ("nosuch", 404)):
                answer = await browser.post(f"/api/v1/{path}", json={})
                assert answer.status == status, path
            answer = await browser.get("/api/v1/programs/capture/restart")
            assert answer.status == 405, "looking never restarts"

    asyncio.run(test())


@pytest.mark.parametrize(
    ("state", "pid", "calls"),
    [
        ("RUNNING", 5, [("terminate", "x:x")]),
        ("STARTING", 5, [("terminate", "x:x")]),
        ("BACKOFF", 0, []),
        ("FATAL", 0, [("start", "x:x")]),
        ("EXITED", 0, [("start", "x:x")]),
        ("STOPPED", 0, [("start", "x:x")]),
    ],
)
def test_a_restart_is_one_call_so_that_no_program_stays_stopped(monkeypatch, state, pid, calls):
    """A streamer that died between stop and start left the program stopped for good; BACKOFF answered 503."""
    made = []

    class FakeSupervisord:
        def __init__(self, url):
            pass

        def programs(self):
            return [Program("x", "x", state, pid, 0.0, 0, "")]

        def __getattr__(self, name):
            return lambda full_name: made.append((name, full_name))

    monkeypatch.setenv("SUPERVISOR_SERVER_URL", "unix:///nothing")
    monkeypatch.setattr("streamer.api.programs.Supervisord", FakeSupervisord)
    asyncio.run(restart_programs(None, ["x"]))
    assert made == calls
    asyncio.run(restart_programs(None, ["x"], running=False))
    assert made == calls + [call for call in calls if call[0] == "start"]
