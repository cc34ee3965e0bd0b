"""Commands from the broker: both spellings, what is allowed, instants, and Home Assistant's entities."""

import json

import pytest

from shmcam.control.command_table import BY_NAME
from shmcam.control.messages import (
    Archive,
    Clips,
    Delete,
    DumpConfig,
    Library,
    Logs,
    Night,
    PastStack,
    Ping,
    Protect,
    Record,
    Reply,
    Save,
    Set,
    Snapshot,
)
from shmcam.mqtt.commands_from_broker import (
    CONTROL_COMMANDS,
    RefusedCommandError,
    at_sensor_time,
    command_of_entity,
    is_allowed,
    parse_command,
    reply_payload_of,
)
from tests.shmcam.commands import untimed

NOW = 1_800_000_000_000_000_000


def parse(payload, access="control"):
    data = json.dumps(payload) if isinstance(payload, dict) else payload
    return parse_command(data.encode(), access=access, device="pi", now_utc_ns=NOW)


def test_a_command_is_a_line_of_text_or_a_json_object():
    assert untimed(parse("record start duration_s=5").command) == untimed(Record(action="start", duration_s=5))
    parsed = parse({"command": "record", "action": "start", "id": [7]})
    assert untimed(parsed.command) == untimed(Record(action="start"))
    assert (parsed.id, parsed.at_utc_ns) == ([7], 0)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("recrod start", "UNKNOWN_COMMAND recrod; did you mean record?"),
        ("", "UNKNOWN_COMMAND"),
        ("{", "Expecting property name"),
        ("\udcff", "utf-8"),
        ("[1]", "UNKNOWN_COMMAND"),
        ({"command": "record", "action": "explode"}, "expected start|stop|status|trigger"),
        ({"command": "save", "at_utc_ns": NOW}, "only snapshot and record act at an instant, not save"),
        ({"command": "snapshot", "at_utc_ns": "soon"}, "expected ns since 1970, got 'soon'"),
        ({"command": "snapshot", "at_utc_ns": True}, "expected ns since 1970, got 'True'"),
        ({"command": "snapshot", "at_utc_ns": NOW + 3600 * 10**9}, r"\+3600 s from now by our clock"),
        ({"command": "snapshot", "at_utc_ns": NOW - 3600 * 10**9}, r"-3600 s from now by our clock"),
        ('{"command": "snapshot", "at_utc_ns": ' + "9" * 401 + "}", "at_utc_ns: many years from now by our clock"),
        ('{"command": "snapshot", "at_utc_ns": -' + "9" * 401 + "}", "at_utc_ns: many years from now"),
        ('{"command": "snapshot", "at_utc_ns": 1e999}', "expected ns since 1970, got 'inf'"),
        ('{"command": "timelapse", "since": "\\ud800"}', "surrogates not allowed"),
        ('{"command": "ping", "id": ' + "[" * 600 + "]" * 600 + "}", "id: longer than 1024 characters"),
        ({"command": "save", "devices": ["pi", 5]}, "devices: expected a list of names"),
        ({"command": "save", "devices": "a pi b"}, "devices: expected a list of names, got 'a pi b'"),
        ({"command": "save", "devices": "pizza"}, "devices: expected a list of names, got 'pizza'"),
        ({"message": "night_began", "camera": "cam0"}, "night_began is no command"),
        ("subscribe", "subscribe has no meaning over MQTT"),
        ("shortstream 3", "shortstream has no meaning over MQTT"),
        ("quit", "quit has no meaning"),
        ("set night.enable false", 'mqtt.commands is "control", needed is "all"'),
        ("delete 5", 'needed is "all"'),
        ("dump_config", 'needed is "all"'),
        ("{" * 60000, "property name"),
        ('{"command":' + "[" * 50000, "."),
        ("x" * 70000, "command of 70000 bytes, limit 65536"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(payload, reason):
    data = payload.encode(errors="surrogateescape") if isinstance(payload, str) else json.dumps(payload).encode()
    with pytest.raises(RefusedCommandError, match=reason):
        parse_command(data, access="control", device="pi", now_utc_ns=NOW)


def test_a_command_for_other_devices_is_none_of_ours():
    assert parse({"command": "ping", "devices": ["a", "pi"]}).command == Ping()
    assert parse({"command": "ping", "devices": ["a", "b"]}) is None


@pytest.mark.parametrize(
    ("command", "none", "control", "every"),
    [
        (Save(), False, True, True),
        (Ping(), False, True, True),
        (Clips(), False, True, True),
        (Logs(), False, False, True),
        (Library(action="rebuild"), False, False, True),
        (Archive(name="x"), False, False, True),
        (Protect(number=1), False, False, True),
        (Set(), False, False, True),
        (Delete(number=1), False, False, True),
        (DumpConfig(), False, False, True),
    ],
)
def test_mqtt_commands_says_what_is_allowed(command, none, control, every):
    assert [is_allowed(command, access) for access in ("none", "control", "all")] == [none, control, every]


def test_a_snapshot_or_recording_is_for_an_instant():
    parsed = parse({"command": "snapshot", "label": "x", "at_utc_ns": NOW + 10**9})
    assert parsed.at_utc_ns == NOW + 10**9
    assert at_sensor_time(parsed.command, 55) == Snapshot(label="x", at_ns=55)
    assert at_sensor_time(Record(action="start"), 55).at_ns == 55
    assert at_sensor_time(Ping(), 55) == Ping()


@pytest.mark.parametrize(
    ("entity", "payload", "command"),
    [
        ("recording", b"ON", Record(action="start", camera="cam1")),
        ("recording", b"OFF", Record(action="stop", camera="cam1")),
        ("save", b"PRESS", Save(camera="cam1")),
        ("stack", b"PRESS", PastStack(camera="cam1")),
        ("night_mode", b"on", Night(action="on", camera="cam1")),
        ("night_mode", b"auto", Night(action="auto", camera="cam1")),
    ],
)
def test_each_entity_of_home_assistant_has_its_command(entity, payload, command):
    assert untimed(command_of_entity("cam1", entity, payload, "control")) == untimed(command)
    with pytest.raises(RefusedCommandError, match=r'mqtt\.commands is "none"'):
        command_of_entity("cam1", entity, payload, "none")


@pytest.mark.parametrize(
    ("entity", "payload", "reason"),
    [
        ("recording", b"maybe", "recording = 'maybe': expected one of ON, OFF"),
        ("fire", b"ON", "expected recording, save, stack or night_mode"),
        ("night_mode", b"\xff" * 100, "expected one of auto, on, off"),
    ],
)
def test_an_entity_refuses_other_payloads(entity, payload, reason):
    with pytest.raises(RefusedCommandError, match=reason):
        command_of_entity("cam1", entity, payload, "all")


def test_what_control_allows_are_commands():
    assert set(BY_NAME) >= CONTROL_COMMANDS


def test_an_answer_names_its_device_and_the_callers_id():
    payload = json.loads(reply_payload_of(Reply(text="pong", data={"a": 1}), "pi", 7, at_utc_ns=5))
    assert payload == {
        "device": "pi",
        "ok": True,
        "status": "ok",
        "text": "pong",
        "data": {"a": 1},
        "at_utc_ns": 5,
        "id": 7,
    }
