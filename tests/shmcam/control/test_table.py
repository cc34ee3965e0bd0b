"""The table of commands and the declarations of messages agree with each other and with the docs."""

import typing
from pathlib import Path

import msgspec
import pytest

from shmcam.cli.commands_page import write_page
from shmcam.control.command_table import COMMANDS, find, suggestion
from shmcam.control.help import explain
from shmcam.control.messages import EVENTS, MESSAGES, TOPIC_GROUPS, Save, build, topics_of, wire_name
from shmcam.control.parser import parse_line


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_every_command_has_a_working_example_and_help(row):
    assert isinstance(parse_line(row.example), row.message)
    assert row.help.endswith(".")
    assert row.words[0] in explain(row.words[0]).text
    assert set(row.positional) <= set(row.message.__struct_fields__)


@pytest.mark.parametrize("kind", MESSAGES.values(), ids=lambda kind: kind.__name__)
def test_every_field_of_every_message_is_documented(kind):
    if kind.__name__ in {"Reply", "Chunk"}:
        return  # documented by docstrings under their fields
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        meta = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, msgspec.Meta)]
        assert meta, f"{kind.__name__}.{name} has no describe(…)"


def test_no_two_commands_share_a_word():
    words = [word.lower() for row in COMMANDS for word in row.words]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("word", ["pastStack", "paststack", "past_stack", "PAST-STACK", "PASTSTACK"])
def test_words_are_found_in_any_spelling(word):
    assert find(word)[0].name == "past_stack"


def test_a_mistyped_word_gets_the_nearest_command():
    assert suggestion("recrod") == "record"
    assert suggestion("pictres") == "pictures"
    assert suggestion("xyzzy") == ""


def test_every_topic_group_names_known_events():
    for name, events in TOPIC_GROUPS.items():
        assert set(events) <= set(EVENTS), name
    assert topics_of(("night", "saved")) == {"night_began", "night_ended", "mode_changed", "saved"}
    with pytest.raises(ValueError, match="no topic 'nite'; topics: night, motion"):
        topics_of(("nite",))


def test_wire_names_are_snake_case_of_the_class():
    assert wire_name(Save()) == "save"
    assert {"night_began", "process_stalled", "short_stream", "overwrite_config"} <= set(MESSAGES)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"camera": "../etc"}, "save: camera: expected letters, digits, _ and -, at most"),
        ({"label": "a" * 33}, "save: label: expected letters, digits, _ and -, at most"),
        ({"seconds_ago": -1}, "save: seconds_ago: expected a number >= 0.0"),
        ({"formats": "jpg"}, "save: formats: expected a list, got text"),
        ({"colour": 1}, "save has no field 'colour'; it has: camera, formats, label, seconds_ago"),
    ],
)
def test_values_out_of_range_are_refused_with_what_was_expected(values, expected):
    with pytest.raises(ValueError) as refusal:
        build(Save, values)
    assert expected in str(refusal.value)


def test_the_page_of_commands_says_what_the_code_does():
    shipped = Path(__file__).resolve().parents[3] / "docs" / "commands.md"
    assert shipped.read_text() == write_page(), "run: python -m shmcam.cli.commands_page > docs/commands.md"
