"""Lines and objects become the messages people mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmcam.control.messages import (
    Archive,
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
)
from shmcam.control.parser import UnknownCommandError, parse_line, parse_object


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("save", Save()),
        ("SNAP", Save()),
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
    ],
)
def test_lines(line, message):
    assert parse_line(line, ("frontdoor",)) == message


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
        ("set", "set: expected KEY VALUE"),
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


def test_unknown_words_are_answered_with_a_suggestion():
    with pytest.raises(UnknownCommandError, match=r"^UNKNOWN_COMMAND savee; did you mean save\?$"):
        parse_line("savee")
    with pytest.raises(UnknownCommandError, match=r"^UNKNOWN_COMMAND zzzzzz; `help` lists the commands$"):
        parse_line("zzzzzz")


def test_control_characters_of_a_stranger_are_escaped():
    with pytest.raises(UnknownCommandError) as refusal:
        parse_line("\x1b[2Jx")
    assert "\x1b" not in str(refusal.value)


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
    ],
)
def test_objects(value, message):
    assert parse_object(value) == (message, None)


def test_an_id_comes_back():
    assert parse_object({"command": "save", "id": "7"}) == (Save(), "7")


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
