"""Lines and objects become the messages people mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmcam.control.messages import (
    Archive,
    Clips,
    Command,
    Get,
    Logs,
    Night,
    PastStack,
    Preview,
    Record,
    Save,
    Set,
    ShortStream,
    Snapshot,
    Subscribe,
    Timelapse,
    build,
)
from shmcam.control.parser import UnknownCommandError, escape, parse_line, parse_object
from tests.shmcam.commands import untimed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("save", Save()),
        ("SNAP", Save()),
        ("save\tjpg  png", Save(formats=("jpg", "png"))),
        ("RECORD START cam0", Record(action="start", camera="cam0")),
        ("record action=Stop", Record(action="stop")),
        ("save cam1 jpg png", Save(camera="cam1", formats=("jpg", "png"))),
        ("save frontdoor npy", Save(camera="frontdoor", formats=("npy",))),
        ("save formats=jpg,png label=x", Save(formats=("jpg", "png"), label="x")),
        ("save jpg cam1 png", Save(camera="cam1", formats=("jpg", "png"))),
        ("save npy frontdoor", Save(camera="frontdoor", formats=("npy",))),
        ("snapshot cam0 cam1 jpg", Snapshot(cameras=("cam0", "cam1"), formats=("jpg",))),
        ("snapshot jpg cam0 png cam1", Snapshot(cameras=("cam0", "cam1"), formats=("jpg", "png"))),
        ("pastStack png method=max cam1", PastStack(camera="cam1", method="max", formats=("png",))),
        ("pastStack before_s=2 method=mean png", PastStack(before_s=2.0, method="mean", formats=("png",))),
        ("pastStack --align", PastStack(align=True)),
        ("record start", Record(action="start")),
        ("record start cam1 duration_s=60", Record(action="start", camera="cam1", duration_s=60.0)),
        ("record", Record(action="status")),
        ("archive trial_7 --from 2h --to 1h", Archive(name="trial_7", since="2h", until="1h")),
        ("night on", Night(action="on")),
        ("shortstream 3", ShortStream(count=3)),
        ("preview enabled=off", Preview(enabled=False)),
        ("logs capture 5", Logs(process="capture", lines=5)),
        ("subscribe night motion", Subscribe(topics=("night", "motion"))),
        ("set night.dark_threshold 35", Set(changes={"night.dark_threshold": "35"})),
        ("set a.b=1 c.d=2 --save", Set(changes={"a.b": "1", "c.d": "2"}, save=True)),
        ('set recorder.text "two words"', Set(changes={"recorder.text": "two words"})),
        ("  save  ", Save()),
        ("archive trial_7 from=2h to=1h", Archive(name="trial_7", since="2h", until="1h")),
        ("save cam=cam1 seconds-ago=2", Save(camera="cam1", seconds_ago=2.0)),
        ("save --seconds-ago 2 --cam cam1", Save(camera="cam1", seconds_ago=2.0)),
        ("save --formats jpg,png --label=owl cam1", Save(camera="cam1", formats=("jpg", "png"), label="owl")),
        ('save --label "" png', Save(formats=("png",))),
        ("save label= png", Save(formats=("png",))),
        ("pastStack --align png", PastStack(align=True, formats=("png",))),
        ("record start --protect cam1", Record(action="start", camera="cam1", protect=True)),
        ("record start protect=NO", Record(action="start")),
        ("record start protect=Yes", Record(action="start", protect=True)),
        ("record start protect=ON label=ON", Record(action="start", protect=True, label="ON")),
        ("record frontdoor", Record(camera="frontdoor")),
        ("record status frontdoor", Record(camera="frontdoor")),
        ("record camera=cam2 start", Record(action="start", camera="cam2")),
        ("timelapse frontdoor", Timelapse(camera="frontdoor")),
        ("clips frontdoor", Clips(camera="frontdoor")),
        ("snapshot frontdoor cam_a1 png", Snapshot(cameras=("frontdoor", "cam_a1"), formats=("png",))),
        ("save cam-1", Save(camera="cam-1")),
        ("snapshot jpg", Snapshot(formats=("jpg",))),
        ("set --save a.b two words", Set(changes={"a.b": "two words"}, save=True)),
        ("set a.b x=y", Set(changes={"a.b": "x=y"})),
        ("set a.b=x=y", Set(changes={"a.b": "x=y"})),
    ],
)
def test_lines(line, message):
    assert untimed(parse_line(line, ("frontdoor",))) == untimed(message)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("protect", "protect: missing required field number"),
        ("protect x", "protect: number: expected a whole number, got text"),
        ("protect 0", "protect: number: expected a whole number >= 1"),
        ("record begin", "record: action: expected start|stop|status|trigger, got 'begin'"),
        ("shortstream 99999", "short_stream: count: expected a whole number <= 10000"),
        ("clips cam0 more", "clips: 'more' is too much; usage: clips [camera] [since=…] [until=…] [limit=…]"),
        ("save cam0 cam1 png", "save: 'cam1' is too much; usage: save [camera] [formats …] [label=…] [seconds_ago=…]"),
        ("pastStack camera=cam0 png cam1", "pastStack: 'cam1' is too much; usage: pastStack [camera] [formats …]"),
        ("save colour=1", "save: no option colour; it has: camera, formats, label, seconds_ago"),
        ('save "', "save: no closing quotation"),
        ("set", "set: expected KEY VALUE, or KEY=VALUE …; `get` lists the keys"),
        ("set a.b", "set: expected KEY VALUE, or KEY=VALUE …; `get` lists the keys"),
        ("set a.b=1 c.d", "set: expected KEY VALUE, or KEY=VALUE …; `get` lists the keys"),
        ('SET "', "set: no closing quotation"),
        ("ping --loud", "ping: no option loud; it has: none"),
        ("ping " + "x" * 50, f"ping: {'x' * 40!r} is too much; usage: ping"),
        ("save a-b=1", "save: no option a_b; it has"),
        ("save --label", "save: --label needs a value"),
        ("save cam0 --seconds-ago", "save: --seconds-ago needs a value"),
        ("save label=a=b", "save: label: expected letters, digits, _ and -"),
        ("record start cam1 more", "record: 'more' is too much; usage: record [start|stop|status|trigger] [camera]"),
        ("record start cam1 more", "[duration_s=…] [label=…] [protect=…] [at_ns=…]"),
        ("record start camera=cam0 cam1", "record: 'cam1' is too much"),
        (
            "archive ../../etc",
            "archive: name: expected letters, digits, _ and -, at most 64, the first a letter or digit",
        ),
        ("archives delete ../a", "archives: name: expected letters, digits, _ and -, at most 64"),
        ("save label=../x", "save: label: expected letters, digits, _ and -, at most 32, the first a letter or digit"),
    ],
)
def test_errors_say_what_was_expected(line, expected):
    with pytest.raises(ValueError) as refusal:
        parse_line(line)
    assert expected in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ('save "', "save: no closing quotation"),
        ("ping --loud", "ping: no option loud; it has: none"),
        ("ping x", "ping: 'x' is too much; usage: ping"),
        ("set", "set: expected KEY VALUE, or KEY=VALUE …; `get` lists the keys"),
    ],
)
def test_these_are_the_whole_errors(line, whole):
    with pytest.raises(ValueError) as refusal:
        parse_line(line)
    assert str(refusal.value) == whole


def test_unknown_words_are_answered_with_a_suggestion():
    with pytest.raises(UnknownCommandError, match=r"^UNKNOWN_COMMAND savee; did you mean save\?$"):
        parse_line("savee")
    with pytest.raises(UnknownCommandError, match=r"^UNKNOWN_COMMAND zzzzzz; `help` lists the commands$"):
        parse_line("zzzzzz")
    with pytest.raises(UnknownCommandError, match=r"^UNKNOWN_COMMAND savee; `help` lists the commands$"):
        parse_line("savee", suggest=False)


def test_control_characters_of_a_stranger_are_escaped():
    with pytest.raises(UnknownCommandError) as refusal:
        parse_line("\x1b[2Jx")
    assert str(refusal.value).startswith("UNKNOWN_COMMAND \\x1b[2Jx; ")
    assert escape("a\tb\0ä" + "x" * 40) == "a\\tb\\x00ä" + "x" * 35


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"command": "start_recording"}, Record(action="start")),
        ({"command": "stop_recording", "camera_id": 1}, Record(action="stop", camera="cam1")),
        ({"command": "take_snapshot"}, Snapshot()),
        ({"command": "take_snapshot", "camera_id": 1}, Snapshot(cameras=("cam1",))),
        ({"command": "toggle_preview", "camera_id": "cam0", "enabled": False}, Preview(camera="cam0", enabled=False)),
        ({"command": "start_recording", "params": {"duration_s": 5}}, Record(action="start", duration_s=5)),
        ({"command": "set", "key": "night.enable", "value": True}, Set(changes={"night.enable": True})),
        ({"message": "past_stack", "count": 4}, PastStack(count=4)),
        ({"message": "past_stack", "count": 4, "event_id": 12}, PastStack(count=4)),
        ({"command": "save", "params": None}, Save()),
        ({"command": "save", "label": "a", "params": {"label": "b"}}, Save(label="b")),
        ({"command": "record", "params": {"action": "stop", "camera_id": 2}}, Record(action="stop", camera="cam2")),
        ({"command": "save", "camera_id": 1, "params": {"camera_id": 2}}, Save(camera="cam2")),
        ({"command": "save", "camera_id": 0}, Save(camera="cam0")),
        ({"command": "save", "camera_id": "frontdoor"}, Save(camera="frontdoor")),
        ({"command": "snapshot", "camera": "porch"}, Snapshot(cameras=("porch",))),
        ({"command": "stop_recording", "action": "start"}, Record(action="start")),
        ({"command": "set", "key": 5, "save": True}, Set(changes={"5": None}, save=True)),
        ({"command": "set", "changes": {"a.b": 1}}, Set(changes={"a.b": 1})),
        ({"command": "get", "key": "night"}, Get(key="night")),
    ],
)
def test_objects(value, message):
    command, ident = parse_object(value)
    assert untimed(command) == untimed(message) and ident is None


def test_an_id_comes_back():
    assert parse_object({"command": "save", "id": "7"}) == (Save(), "7")
    assert parse_object({"message": "save", "id": 7}) == (Save(), 7)


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        ({}, 'expected an object such as {"command": "start_recording"}'),
        ({"command": 5}, 'expected an object such as {"command": "start_recording"}'),
        ({"command": "savee"}, "UNKNOWN_COMMAND savee; did you mean save?"),
        ({"message": "savee"}, "UNKNOWN_COMMAND savee"),
        ({"message": None}, "UNKNOWN_COMMAND None"),
        ({"command": "save", "camera_id": -1}, "save: camera: expected text, got a whole number"),
        ({"command": "save", "camera_id": True}, "save: camera: expected text, got true or false"),
    ],
)
def test_errors_of_objects(value, whole):
    with pytest.raises(ValueError) as refusal:
        parse_object(value)
    assert str(refusal.value) == whole


@pytest.mark.parametrize("command", Command.__subclasses__())
def test_no_number_of_a_command_is_beyond_64_bits(command):
    """`delete 99999999999999999999` went to the exporter as text, which refused it: no answer for ten seconds."""
    for name in command.__struct_fields__:
        with pytest.raises(ValueError, match=rf"{name}|missing"):
            build(command, {name: 1 << 64})


@given(st.text(max_size=300))
def test_no_line_raises_anything_but_value_errors(line):
    try:
        parse_line(line)
    except ValueError as problem:
        assert str(problem)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["save", "set", "record", "preview", "subscribe", "nope"]),
    st.dictionaries(st.text(max_size=12), JSON_VALUES),
)
def test_no_object_raises_anything_but_value_errors(word, fields):
    try:
        parse_object({**fields, "command": word})
    except ValueError as problem:
        assert str(problem)
