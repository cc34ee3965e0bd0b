"""`shmcam fleet`: devices are found, asked, and waited for. A thousand of them: make bench ARGS=fleet."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shmcam.mqtt.fleet.__main__ import main
from shmcam.mqtt.fleet.answers import Answers
from shmcam.mqtt.fleet.devices import FleetDevices
from tests.machine import until
from tests.shmcam.mqtt.brokers import MOSQUITTO, Listener, Mosquitto

ROOT = Path(__file__).parents[3]


# ---- without a broker


def answer(device, ok=True, offset_s=None, **more):
    data = {"frames": {"cam0": {"asked_age_s": 1.0 + offset_s, "age_s": 1.0}}} if offset_s is not None else {}
    return json.dumps({"device": device, "ok": ok, "text": "done\nmore", "data": data, **more}).encode()


def test_an_answer_counts_once_and_only_from_a_device_that_was_asked():
    answers = Answers(expected={"a", "b"}, offline={"z"})
    assert answers.note(answer("a"))
    assert not answers.note(answer("a"))
    assert not answers.note(answer("stranger"))
    for nonsense in (b"", b"[]", b"{}", b'{"device": ["a"]}', b"[" * 50_000, b"\xff"):
        assert not answers.note(nonsense)
    assert (answers.is_complete, answers.missing) == (False, ["b"])
    assert answers.note(answer("b", ok=False))
    assert (answers.is_complete, answers.failed) == (True, ["b"])
    lines = answers.to_text(0.5).splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["a", "ok"], ["b", "failed"], ["z", "offline"]]
    assert lines[4] == "2 of 2 devices answered within 0.5 s, 1 of them failed, 1 are offline"


def test_the_spread_of_a_snapshot_is_told_with_the_error_of_the_clocks():
    answers = Answers(expected={"a", "b", "c"})
    for name, offset_s, error_us in (("a", -0.012, 1500), ("b", 0.004, 300), ("c", 0.0, None)):
        assert answers.note(answer(name, offset_s=offset_s, clock_error_us=error_us, at_utc_ns=5))
    assert answers.describe_spread() == (
        "frames: -12.0 to +4.0 ms from the instant, by each device's clock; clocks at most ±1.5 ms; "
        "1 devices have a clock that no NTP client has set"
    )
    assert Answers(expected={"a"}).describe_spread() == ""


def test_a_device_is_shown_with_whatever_of_its_health_is_readable():
    devices = FleetDevices("shmcam")
    health = {"cameras": {"cam0": {"state": "found", "recording": True}, "cam1": {"state": "lost"}}, "version": "1"}
    health |= {"disk_free_bytes": 9_000_000_000, "disk_total_bytes": 10, "problems": ["cam1: unplugged"]}
    health |= {"clock": {"error_us": 250}}
    devices.note("shmcam/b/availability", b"online")
    devices.note("shmcam/b/health", json.dumps(health).encode())
    devices.note("shmcam/a/availability", b"offline")
    for health in (b"nonsense", b"[]", b'{"cameras": 5, "problems": 3, "clock": "x"}', b"{" * 9999):
        devices.note("shmcam/c/health", health)
    devices.note("shmcam/a/camera/cam0/state", b"{}")
    rows = [device.to_row() for device in devices.list_all()]
    assert list(rows[1].values()) == ["b", "online", "1/2 rec 1", "9 GB", "±0.2 ms", "1", "cam1: unplugged"]
    assert rows[0]["state"] == rows[2]["state"] == "offline"
    assert rows[2]["clock"] == "not set"


ODD = (
    "9" * 401,
    "1e999",
    "NaN",
    "true",
    '"\\ud800\\u001b"',
    "[" * 700 + "]" * 700,
    '{"error_us": %s}' % ("9" * 305),
    '["\\ud800"]',
)


def test_answers_and_health_of_strangers_are_shown_whatever_stands_in_them():
    for odd in (*ODD, '{"frames": {"cam0": {"asked_age_s": %s, "age_s": NaN}}}' % ("9" * 401)):
        for key in ("ok", "text", "data", "clock_error_us", "at_utc_ns"):
            answers = Answers(expected={"a"})
            assert answers.note(f'{{"device": "a", "at_utc_ns": 5, "{key}": {odd}}}'.encode())
            assert answers.to_text(1.0).encode()
            assert "NaN" not in json.dumps(answers.by_device)
        for key in ("clock", "cameras", "disk_free_bytes", "problems", "version"):
            devices = FleetDevices("shmcam")
            devices.note("shmcam/a/health", f'{{"disk_total_bytes": 5, "{key}": {odd}}}'.encode())
            assert devices.by_name["a"].health
            assert "".join(devices.list_all()[0].to_row().values()).encode()


# ---- with one


def fleet(broker, *words, code=0):
    """What a command prints; in this process, as each start costs a second on a busy machine."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            found = main(["--config", str(broker.folder / "config.toml"), *words])
        except SystemExit as end:
            found = end.code
    assert found == code, out.getvalue() + err.getvalue()
    return out.getvalue() or err.getvalue()


@pytest.fixture(scope="module")
def broker():
    if MOSQUITTO is None:
        pytest.skip("not installed: mosquitto")
    with Mosquitto() as broker:
        (broker.folder / "config.toml").write_text(f"[mqtt]\nport = {broker.port}\n")
        command = [sys.executable, "-m", "bench.peers.mqtt_devices", str(broker.port), "3", "1", "x"]
        devices = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            yield broker
        finally:
            devices.kill()
            devices.wait()


def online_of(broker):
    return sum(row["online"] for row in json.loads(fleet(broker, "list", "--json"))["devices"])


def test_devices_are_found_asked_and_gathered(broker):
    until(lambda: online_of(broker) == 3, 30, "three devices")
    command = [sys.executable, "-m", "shmcam.cli.main", "--config", str(broker.folder / "config.toml"), "fleet", "list"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT).stdout
    assert re.search(r"^dx-0001 +online +1/1 +9 GB +±1\.5 ms", text, re.M)
    assert text.endswith("3 of 3 devices are online\n")
    text = fleet(broker, "run", "ping")
    assert "3 of 3 devices answered within" in text
    text = fleet(broker, "run", "--on", "dx-0001", "record", "start", "duration_s=3")
    assert text.splitlines()[1].startswith("dx-0001  ok")
    assert "1 of 1 devices answered" in text
    text = fleet(broker, "snapshot", "--ahead", "0.5", "--label", "trial_7")
    assert "frames: +10.0 to +10.0 ms from the instant, by each device's clock; clocks at most ±1.5 ms" in text
    rows = json.loads(fleet(broker, "record", "start", "--ahead", "0.3", "--on", "dx-0000", "--json"))
    assert rows["answers"]["dx-0000"]["at_utc_ns"] > 0 and rows["missing"] == []


def test_what_does_not_answer_is_named_and_gives_another_exit_code(broker):
    until(lambda: online_of(broker) == 3, 30, "three devices")
    with Listener(broker) as listener:
        listener.publish("shmcam/dead/availability", "online", retain=True)
        listener.publish("shmcam/gone/availability", "offline", retain=True)
        listener.publish("shmcam/gone/camera/cam0/state", "{}", retain=True)
        listener.publish("homeassistant/device/gone/cam0/config", "{}", retain=True)
        text = fleet(broker, "run", "--deadline", "1", "ping", code=75)
        assert re.search(r"^dead +no answer", text, re.M) and re.search(r"^gone +offline", text, re.M)
        assert "3 of 4 devices answered within" in text and text.endswith("1 are offline\n")
        assert "no device is online (gone)" in fleet(broker, "run", "--on", "gone", "ping", code=69)
        assert "dead is online" in fleet(broker, "forget", "dead", code=1)
        assert fleet(broker, "forget", "gone") == "gone: 3 topics removed\n"
        assert listener.retained["homeassistant/device/gone/cam0/config"] == b""
        listener.publish("shmcam/dead/availability", "", retain=True)
    assert "expected a command" in fleet(broker, "run", code=2)


def test_a_broker_that_does_not_let_us_read_or_write_is_told_with_what_it_must_allow(broker, monkeypatch):
    monkeypatch.setattr("shmcam.mqtt.fleet.broker_session.FIND_S", 0.5)
    rules = broker.folder / "acl"
    for allowed, refused in (("write", "it refuses to let us read"), ("read", "it refuses to let us write")):
        rules.write_text(f"topic {allowed} shmcam/#\n")
        with Mosquitto(f"allow_anonymous true\nacl_file {rules}") as strict:
            text = fleet(broker, "list", "--set", f"mqtt.port={strict.port}", code=69)
        assert f"the broker 127.0.0.1:{strict.port}: {refused} shmcam/reply/fleet-" in text
        assert "access rules must allow" in text


def test_without_a_broker_it_says_so(broker):
    broker.kill(signal.SIGKILL)
    text = fleet(broker, "list", code=69)
    assert f"no answer from the broker 127.0.0.1:{broker.port}: Connection refused" in text
    text = fleet(broker, "list", "--set", "mqtt.tls=true", "--set", "mqtt.tls_ca=gone.pem", code=69)
    assert "No such file" in text
    assert "no answer from the broker a..b:" in fleet(broker, "list", "--set", "mqtt.host=a..b", code=69)
    broker.start()
