"""The hooks process with a real hub, watchdog and supervisord: nothing is lost, nothing is told that is secret."""

import base64
import json
import os
import secrets
import signal
import subprocess
import sys

import numpy as np
import pytest

from shm_ring import FrameMeta, RingWriter
from shm_ring.formats import geometry
from shmcam.control.client import ControlClient
from shmcam.control.messages import MotionBegan, NightBegan, NightEnded, Saved
from shmcam.runtime.clock import now_ns
from tests.machine import until
from tests.shmcam.hooks.receiver import Receiver, parts_of, verify
from tests.shmcam.watchdog.supervised import SupervisedOptional

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef" * 2).decode()

CONFIG = """
[ring]
prefix = "{prefix}"
[night]
on_night = ["{python}", "-c", "import os, sys; open('{folder}/night', 'a').write(os.environ['SHMCAM_HOOK_NIGHT'])"]
on_day = ["{python}", "-c", "import os, sys; open('{folder}/night', 'a').write(os.environ['SHMCAM_HOOK_REASON'])"]
[hooks]
enable = true
[hooks.actions.server]
events = ["motion_began", "saved"]
webhook = "{url}/verysecretpath"
secret = "{secret}"
[hooks.actions.picture]
events = ["motion_ended", "motion_began"]
cameras = ["cam0"]
attach = "picture"
max_per_hour = 2
webhook = "{url}/picture"
[hooks.actions.bell]
events = ["saved"]
command = ["{python}", "-c", "import sys; open('{folder}/bell', 'a').write(sys.stdin.read() + chr(10))"]
"""


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def service(receiver, tmp_path_factory):
    folder, prefix = tmp_path_factory.mktemp("notes"), f"t{secrets.token_hex(5)}"
    places = {"url": receiver.url, "secret": SECRET, "folder": folder, "python": sys.executable, "prefix": prefix}
    with SupervisedOptional(CONFIG.format(**places)) as service:
        service.notes, service.prefix = folder, prefix
        with ControlClient("capture", "cam0", socket_path=service.socket) as control:
            service.announce = control.announce
            until(lambda: control.is_connected and service.row("hooks")[1:2] == ["running"], 40)
            yield service


def figures(service):
    rows = service.json({"command": "get_status"})["data"]["processes"]
    return next(row for row in rows if row["program"] == "hooks")


def test_an_event_goes_where_it_should_with_a_picture_and_a_signature(service, receiver):
    form = geometry("gray", 64, 48)
    name = f"/{service.prefix}.cam0.main"
    places = {"lock_dir": service.folder / "run", "camera": "cam0", "stream": "main"}
    with RingWriter.create(name, slots=4, payload_bytes=form.payload_bytes, **places) as ring:
        ring.publish(np.full(form.payload_bytes, 200, np.uint8), FrameMeta(1, now_ns(), 10**18), form)
        service.announce(MotionBegan(camera="cam0", zone="door"))
        until(lambda: len(receiver.got) == 2, 30, lambda: service.log_of("hooks"))
    got = {path: (headers, body) for path, headers, body, _ in receiver.got}
    headers, body = got["/verysecretpath"]
    told = json.loads(body)
    assert verify(SECRET, headers, body) and headers["webhook-id"] == told["id"]
    assert (told["event"], told["camera"], told["data"]["zone"], told["test"]) == (
        "motion_began",
        "cam0",
        "door",
        False,
    )
    parts = parts_of(*got["/picture"])
    assert parts["file"][:2] == ("picture.jpg", "image/jpeg") and parts["file"][2].startswith(b"\xff\xd8")
    assert json.loads(parts["event"][2])["attached"] == "picture.jpg"
    service.announce(Saved(camera="cam1", path="/a.jpg"))
    bell = service.notes / "bell"
    until(lambda: bell.exists() and bell.read_text().endswith("}\n"), 30)
    assert json.loads(bell.read_text())["data"]["path"] == "/a.jpg"


def test_day_and_night_commands_work_as_they_always_did(service):
    service.announce(NightBegan(camera="cam0", reason="level=3<40"))
    night = service.notes / "night"
    until(lambda: night.exists() and night.read_text() == "began", 30, lambda: service.log_of("hooks"))
    service.announce(NightEnded(camera="cam0", reason="level=90>80"))
    until(lambda: night.read_text() == "beganlevel=90>80", 30, lambda: service.log_of("hooks"))


def test_a_server_that_is_away_and_a_kill_lose_nothing(service, receiver):
    """Down, kill -9 of hooks with events in the queue, one more while it is dead, up: all come, in order."""
    receiver.got.clear()
    receiver.refuse_all = 503
    for number in range(3):
        service.announce(Saved(camera="cam0", path=f"/{number}.jpg"))
    until(lambda: figures(service)["figures"]["waiting"] == 3, 30, lambda: service.log_of("hooks"))
    until(lambda: "server: HTTP 503, 3 wait" in figures(service)["reason"], 30, lambda: str(figures(service)))
    first = service.pid("hooks")
    os.kill(first, signal.SIGKILL)
    service.announce(Saved(camera="cam0", path="/3.jpg"))
    until(lambda: service.pid("hooks") not in (0, first), 30)
    receiver.refuse_all = 0
    until(lambda: len(receiver.events()) >= 4, 40, lambda: service.log_of("hooks"))
    events = receiver.events()
    assert [event["data"]["path"] for event in events] == [f"/{number}.jpg" for number in range(4)]
    assert len({event["id"] for event in events}) == 4
    tried = [json.loads(body)["id"] for *_, body, status in receiver.got if status == 503]
    assert set(tried) == {events[0]["id"]}, "in order: the first one is tried again, with the same id"
    until(lambda: figures(service)["figures"].get("waiting") == 0, 20)


def test_limits_are_counted_and_no_secret_is_shown_anywhere(service, receiver):
    for _ in range(4):
        service.announce(MotionBegan(camera="cam0"))
    until(lambda: figures(service)["figures"]["hooks"]["picture"]["limited"] >= 2, 30)
    shown = [service.text("dump_config"), service.text("dump_config toml"), service.text("get hooks.actions")]
    shown += [service.text("status"), json.dumps(figures(service)), service.log_of("hooks")]
    assert any('"webhook":"***"' in text.replace(" ", "") for text in shown)
    for text in shown:
        assert "verysecretpath" not in text and SECRET not in text and "MDEyMzQ1" not in text
    assert service.text("set hooks.enable false").startswith("ERROR")


def test_hooks_test_carries_one_out_now(service, receiver):
    def shmcam(*words):
        command = [sys.executable, "-m", "shmcam.cli.main", "--config", str(service.config), "hooks", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    receiver.got.clear()
    done = shmcam("test", "server")
    assert done.returncode == 0 and "server (webhook): done after" in done.stdout and "verysecret" not in done.stdout
    assert receiver.events()[0]["test"] is True and receiver.events()[0]["event"] == "motion_began"
    receiver.statuses.append(401)
    done = shmcam("test", "server", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["data"]["text"] == "HTTP 401"
    assert "picture" in shmcam().stdout and "cam0.night" in shmcam().stdout
    assert "no hook 'nothing'" in shmcam("test", "nothing").stderr
