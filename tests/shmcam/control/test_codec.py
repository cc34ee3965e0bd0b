"""Bytes in, messages out: whole, byte by byte, malformed, and far too much."""

import base64
import io
import json
import os
import random
import re
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import msgpack
import numpy
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shmcam.control.codec import (
    COMPLETE_WITHIN_S,
    LINE_BYTES_MAX,
    SUGGESTIONS_MAX,
    Decoder,
    Received,
    Refused,
    dialect_of,
    encode,
    encode_or_error,
)
from shmcam.control.messages import (
    CHUNK_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PROCESS_BYTES_MAX,
    Chunk,
    Heartbeat,
    Hello,
    NightBegan,
    Part,
    Ping,
    PreviewFrame,
    Record,
    Reply,
    Save,
    Saved,
    Set,
    SettingChanged,
    error,
)

SAMPLES = [
    Save(camera="cam0", formats=("jpg", "png")),
    Record(action="start", duration_s=2.5),
    Hello(role="analyzer", pid=7, commands=("night_level",)),
    Heartbeat(role="capture", fps=30.0, figures={"drops": 0}),
    NightBegan(camera="cam0", score=12.5),
    SettingChanged(key="night.enable", old=True, new=False),
    PreviewFrame(camera="cam0", jpeg=b"\xff\xd8"),
    Reply(ok=False, status="no_frames", text="ERROR: none", data={"a": [1, {"b": None}]}),
    Chunk(data=bytes(range(256)), end=True),
]


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_msgpack_goes_round_byte_by_byte(message):
    decoder, decoded = Decoder(), []
    for byte in encode("msgpack", message, 42):
        decoded += decoder.feed(bytes([byte]), 0.0)
    assert decoded == [Received(message, 42)]
    assert decoder.pending_bytes == 0


def test_many_messages_in_one_piece_come_out_in_order():
    data = b"".join(encode("msgpack", message, number) for number, message in enumerate(SAMPLES))
    assert [item.id for item in Decoder().feed(data * 40, 0.0)] == list(range(len(SAMPLES))) * 40


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_text_and_json_go_in_any_pieces(piece):
    for data in (b"save cam0 jpg\r\n\nrecord start\n", b'{"command":"save"}\n\n{"command": "start_recording"}\n'):
        decoder, decoded = Decoder(), []
        for start in range(0, len(data), piece):
            decoded += decoder.feed(data[start : start + piece], 0.0)
        assert [type(item.message) for item in decoded] == [Save, Record]


def test_a_line_that_begins_with_a_letter_beyond_ascii_is_answered_like_any_other():
    [decoded] = Decoder().feed("échec\n".encode(), 0.0)
    assert decoded == Refused(Reply(ok=False, status="unknown_command", text=decoded.reply.text))
    assert decoded.reply.text.startswith("UNKNOWN_COMMAND échec; ")


def test_a_last_line_without_its_newline_counts_at_the_end():
    decoder = Decoder()
    assert decoder.feed(b"save", 0.0) == []
    assert decoder.finish() == [Received(Save())]


@pytest.mark.parametrize(
    ("first", "dialect"),
    [
        *[(first, "msgpack") for first in (0x80, 0x8F, 0xDE, 0xDF)],
        *[(first, "") for first in (0x90, 0xC0, 0xC1, 0xF5, 0xFF)],
        *[(letter.encode()[0], "text") for letter in ("é", "夜", "🌙")],
        *[(first, "text") for first in (0xC2, 0xF4)],
        *[(ord("{"), "json"), (ord("s"), "text"), (0, "text"), (0x7F, "text")],
    ],
)
def test_the_first_byte_settles_the_dialect(first, dialect):
    assert dialect_of(first) == dialect


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x81\xa1a\xdd\x40\x00\x00\x00",  # an array of 2^30
        b"\xdf\xff\xff\xff\xff",  # a map of 2^32-1
        b"\x81\xa1a" + b"\x91" * 2000,  # nested 2000 deep
        b"\x81\xa1a" + b"\xdd\x00\x00\xff\xff" * 1000,  # 5 KB of array headers
        b"\x81\xa1a\xc6\x40\x00\x00\x00",  # 1 GiB of bytes
        b"\x81\xa1a\xdb\x40\x00\x00\x00",  # 1 GiB of text
        b"\x81\xa1a\xc9\x40\x00\x00\x00\x01",  # 1 GiB of extension
        b"\x81\xa2\xff\xfe\x01",  # a key that is not UTF-8
        b"\x81\x01\x02",  # a key that is a number
        b"\x81\xa1a\xc1",  # the byte msgpack never uses
        b"\x80\x01",  # something that is no map, after one
    ],
)
def test_msgpack_bombs_are_refused_at_once_and_cost_nothing(bomb):
    tracemalloc.start()
    decoder = Decoder()
    decoded = decoder.feed(bomb, 0.0)
    # a long header alone allocates nothing: it ends by the limit on bytes, or by the deadline for the message
    decoded = decoded or decoder.feed(b"x" * (MESSAGE_BYTES_MAX + 1), 0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(decoded[-1], Refused)
    assert decoded[-1].fatal or "malformed" in decoded[-1].reply.text or "UNKNOWN_COMMAND" in decoded[-1].reply.text
    assert peak < 4 << 20


def test_a_message_longer_than_the_limit_is_refused_before_it_is_complete():
    decoder = Decoder()
    start = b"\x82\xa7message\xa4save\xa5label\xdb\x00\x03\x00\x00"
    decoded = decoder.feed(start + b"x" * (MESSAGE_BYTES_MAX + 1), 0.0)
    assert decoded[-1].fatal
    assert "longer than 65536 bytes" in decoded[-1].reply.text


def test_a_process_may_send_longer_messages_than_a_stranger():
    data = encode("msgpack", Reply(text="x" * (PROCESS_BYTES_MAX - 100)), 1)
    decoder = Decoder(limit_bytes=PROCESS_BYTES_MAX)
    assert decoder.feed(data, 0.0)[-1].message.text.endswith("x")
    assert Decoder().feed(data, 0.0)[-1].fatal


LISTS = {
    "logs": {"lines": ["2026-11-29T20:00:00.000Z INFO  capture.loop  frame " + "x" * 100] * 400},
    "library": {"rows": [{"id": row, "path": f"/captures/picture_{row}.jpg", "label": "é"} for row in range(2000)]},
    "sessions": {"viewers": [{"id": row, "kind": "mjpeg"} for row in range(1000)]},
    "cameras": {"cameras": [{"camera": f"cam{row}", "modes": list(range(300))} for row in range(300)]},
    "events": {"events": [[row, {"camera": "cam0"}] for row in range(257)]},
    "settings": {"settings": {f"cameras.cam{row}.width": row for row in range(1500)}},
    "archive": {"files": [f"clip_{row}.mp4" for row in range(5000)]},
}


@pytest.mark.parametrize("name", LISTS)
def test_a_reply_with_a_long_list_arrives_whole(name):
    """The Logs tab said "malformed msgpack: 300 exceeds max_array_len(256)" after a quarter of an hour."""
    reply = Reply(status=name, text="\n".join("x" * 70 for _ in range(400)), data=LISTS[name])
    data = encode("msgpack", reply, 7) + encode("msgpack", Reply(text="next"), 8)
    decoder = Decoder(limit_bytes=PROCESS_BYTES_MAX)
    decoded = [one for start in range(0, len(data), 1000) for one in decoder.feed(data[start : start + 1000], 0.0)]
    assert [(one.id, one.message) for one in decoded] == [(7, reply), (8, Reply(text="next"))]
    assert decoder.pending_bytes == 0


def test_a_stranger_may_send_a_long_list_too_but_not_more_bytes_than_others():
    decoded = Decoder().feed(encode("msgpack", Set(changes={"privacy.mask": list(range(1000))}), 1), 0.0)
    assert decoded[0].message.changes == {"privacy.mask": list(range(1000))}
    decoder = Decoder()
    part = encode("msgpack", Part(data=b"[" * 40_000, end=False))
    assert decoder.feed(part, 0.0) == []
    assert not decoder.is_overdue(COMPLETE_WITHIN_S)
    assert decoder.is_overdue(COMPLETE_WITHIN_S + 1)
    assert "longer than 65536 bytes" in decoder.feed(part, 0.0)[-1].reply.text
    assert decoder.pending_bytes == 0


@pytest.mark.parametrize(
    "inside", [b"", b"[", b"{}", b"[1]", b"\xff", b"[" * 40_000, b'{"message":"part","data":"","end":true}']
)
def test_parts_that_make_no_message_are_refused(inside):
    decoded = Decoder().feed(encode("msgpack", Part(data=inside, end=True)), 0.0)
    assert isinstance(decoded[-1], Refused)


def test_a_reply_too_long_for_the_other_end_becomes_an_error():
    data = encode("msgpack", Reply(text="x" * PROCESS_BYTES_MAX), 5)
    decoded = Decoder().feed(data, 0.0)
    assert decoded[0].id == 5
    assert decoded[0].message.status == "too_long"


@pytest.mark.parametrize("first", [b"s", b"{"])
def test_a_line_without_end_is_refused(first):
    decoded = Decoder().feed(first + b"x" * (MESSAGE_BYTES_MAX + 1), 0.0)
    assert decoded[-1].fatal
    assert decoded[-1].reply.status == "too_long"
    assert LINE_BYTES_MAX < MESSAGE_BYTES_MAX


@pytest.mark.parametrize(
    "line",
    [
        b'{"command": NaN}',
        b'{"command": 1e999}',
        b'{"command":',
        b'{"a":' * 5000,
        b'{"command": "\xff"}',
        b'{"x": 1}',
        b'{"command": 5}',
    ],
)
def test_malformed_json_is_refused_and_the_next_line_still_read(line):
    decoded = Decoder().feed(line + b'\n{"command": "save"}\n', 0.0)
    assert isinstance(decoded[0], Refused)
    assert decoded[0].reply.text.startswith("ERROR: ")
    assert decoded[1].message == Save()


def test_a_message_must_be_complete_in_time():
    decoder = Decoder()
    decoder.feed(b"sa", 100.0)
    assert not decoder.is_overdue(100.0 + COMPLETE_WITHIN_S)
    assert decoder.is_overdue(100.1 + COMPLETE_WITHIN_S)
    decoder.feed(b"ve\n", 106.0)
    assert not decoder.is_overdue(200.0)


def test_one_byte_a_second_does_not_extend_the_deadline():
    decoder = Decoder()
    for second in range(7):
        decoder.feed(b"x", float(second))
    assert decoder.is_overdue(6.0)


def test_json_keeps_the_users_wording():
    value = json.loads(encode("json", Reply(status="recording_started", data={"file": "a.mp4"}), "7"))
    assert list(value) == ["type", "status", "timestamp", "data", "id"]
    assert (value["type"], value["status"], value["data"], value["id"]) == (
        "status",
        "recording_started",
        {"file": "a.mp4"},
        "7",
    )
    assert value["timestamp"].endswith("Z")
    picture = json.loads(encode("json", PreviewFrame(camera="cam0", jpeg=b"\xff\xd8\xff")))
    assert picture["type"] == "preview_frame"
    assert base64.b64decode(picture["data"]["frame"]) == b"\xff\xd8\xff"
    failed = json.loads(encode("json", Reply(ok=False, status="no_data", text="ERROR: none")))
    assert (failed["type"], failed["data"]) == ("error", {"message": "ERROR: none", "reason": failed["data"]["reason"]})


def test_numbers_of_numpy_and_objects_of_any_kind_cannot_stop_a_heartbeat():
    beat = Heartbeat(role="capture", figures={"a": numpy.int64(5), "b": numpy.float32(0.5), "c": Path("/x")})
    [decoded] = Decoder().feed(encode("msgpack", beat), 0.0)
    assert decoded.message.figures == {"a": 5, "b": 0.5, "c": "/x"}
    many = Heartbeat(role="capture", figures={"a": [numpy.int64(5)] * 300})
    [decoded] = Decoder().feed(encode("msgpack", many), 0.0)
    assert decoded.message.figures == {"a": [5] * 300}


def test_text_shows_events_on_one_line_whatever_they_hold():
    line = encode("text", NightBegan(camera="cam0", reason="two\nlines and \x1b[2J"))
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    assert b"night_began camera=cam0" in line


def refused(text, *, ident=None, status="bad_message", fatal=False):
    return Refused(error(text, status), ident, fatal)


WHOLE = encode("msgpack", Save(), 1)
NIGHT = NightBegan(camera="cam0")

NOT_AN_OBJECT = 'expected an object such as {"command": "get_status"}'

REFUSED = [
    (b"\x90", refused("not msgpack, JSON or text", fatal=True)),
    (WHOLE + b"\x01" + WHOLE, refused("malformed msgpack: a message is a map", fatal=True)),
    (
        WHOLE + b"\x81\x01\x02",
        refused("malformed msgpack: int is not allowed for map key when strict_map_key=True", fatal=True),
    ),
    (WHOLE + b"\xc1", refused("malformed msgpack: FormatError", fatal=True)),
    (
        encode("msgpack", Part(data=b'{"message":"part","data":"","end":true}', end=True)),
        refused("malformed msgpack: a part within parts", fatal=True),
    ),
    (
        msgpack.packb({"message": "x", "id": 7}),
        Refused(Reply(ok=False, status="unknown_command", text="UNKNOWN_COMMAND x"), 7),
    ),
    (
        msgpack.packb({"message": "save", "x": 1, "id": "a"}),
        refused(
            "save has no field 'x'; it has: camera, formats, label, seconds_ago", ident="a", status="bad_arguments"
        ),
    ),
    (b"{\n", refused("malformed JSON: Input data was truncated")),
    (b"{}\n[1]\n", refused(NOT_AN_OBJECT)),
    (b"{}\n" + b'"%s"\n' % (b"x" * 70), refused(f"{NOT_AN_OBJECT}, got '{'x' * 60}'")),
    (
        b'{"command": 5, "id": 3}\n',
        refused('expected an object such as {"command": "start_recording"}', ident=3, status="bad_arguments"),
    ),
    (b"save \xff\n", refused("not UTF-8")),
    (b"save x=1\n", refused("save: no option x; it has: camera, formats, label, seconds_ago", status="bad_arguments")),
    (b"save\n" + b"x" * (LINE_BYTES_MAX + 1), refused("message longer than 8192 bytes", status="too_long", fatal=True)),
    (b"{}\n{" + b" " * MESSAGE_BYTES_MAX, refused("message longer than 65536 bytes", status="too_long", fatal=True)),
]


@pytest.mark.parametrize(("data", "last"), REFUSED, ids=[f"{data[:20]}" for data, _ in REFUSED])
def test_what_is_no_message_is_refused_with_the_reason_and_the_id(data, last):
    """What came before is not lost, what comes after a fatal one is not read."""
    assert Decoder().feed(data, 0.0)[-1] == last


def test_after_mistyped_lines_in_a_row_no_more_commands_are_suggested_until_one_is_right():
    decoder = Decoder()
    replies = [item.reply.text for item in decoder.feed(b"sav\n" * (SUGGESTIONS_MAX + 1), 0.0)]
    assert replies == ["UNKNOWN_COMMAND sav; did you mean save?"] * SUGGESTIONS_MAX + [
        "UNKNOWN_COMMAND sav; `help` lists the commands"
    ]
    [_, again] = decoder.feed(b"save\nsav\n", 0.0)
    assert again.reply.text == replies[0]


def test_the_names_of_cameras_are_known_to_the_text_dialect():
    decoded = Decoder(("porch",)).feed(b"save porch jpg\n", 0.0)
    assert decoded == [Received(Save(camera="porch", formats=("jpg",)))]


@pytest.mark.parametrize("ident", ["x" * 64, "", 0, -(2**63) + 1, 2**63 - 1])
def test_an_id_comes_back_as_it_came(ident):
    assert Decoder().feed(json.dumps({"command": "save", "id": ident}).encode() + b"\n", 0.0)[0].id == ident
    assert Decoder().feed(encode("msgpack", Save(), ident), 0.0)[0].id == ident


@pytest.mark.parametrize("ident", ["x" * 65, 2**63, -(2**63), 1.5, [1], {"a": 1}])
def test_an_id_that_is_long_or_of_another_kind_is_none(ident):
    """The hub keeps it as long as the command is pending."""
    [decoded] = Decoder().feed(json.dumps({"command": "save", "id": ident}).encode() + b"\n", 0.0)
    assert decoded == Received(Save())
    [decoded] = Decoder().feed(msgpack.packb({"message": "x", "id": ident}), 0.0)
    assert isinstance(decoded, Refused) and decoded.id is None


@pytest.mark.parametrize("event_id", [(1, 1), (2**63 - 1, 5)])
def test_an_event_id_goes_between_processes_only(event_id):
    data = encode("msgpack", NIGHT, event_id=event_id)
    assert Decoder().feed(data, 0.0) == [Received(NIGHT, None, event_id)]
    assert b"event_id" not in encode("json", NIGHT, event_id=event_id) + encode("text", NIGHT, event_id=event_id)


@pytest.mark.parametrize("event_id", [[0, 1], [1, 0], [1], [1, 2, 3], [1, 2**63], [True, 1], [1.0, 2], "12", None])
def test_a_malformed_event_id_is_none_and_the_event_is_taken(event_id):
    data = msgpack.packb({"message": "night_began", "camera": "cam0", "event_id": event_id})
    assert Decoder().feed(data, 0.0) == [Received(NIGHT)]


def test_a_pause_in_reading_gives_an_incomplete_message_its_whole_time_again():
    decoder = Decoder()
    decoder.restart_timer(0.0)
    assert not decoder.is_overdue(1000.0), "nothing was begun"
    decoder.feed(b"sa", 100.0)
    decoder.restart_timer(104.0)
    assert not decoder.is_overdue(104.0 + COMPLETE_WITHIN_S)
    assert decoder.is_overdue(104.1 + COMPLETE_WITHIN_S)


def test_the_time_of_a_message_begins_when_the_one_before_is_complete():
    decoder = Decoder()
    decoder.feed(b"sa", 100.0)
    decoder.feed(b"ve\nsa", 104.0)
    assert not decoder.is_overdue(104.0 + COMPLETE_WITHIN_S)
    assert decoder.is_overdue(104.1 + COMPLETE_WITHIN_S)


@pytest.mark.parametrize(
    ("start", "limit_bytes"), [(b"save label=", LINE_BYTES_MAX), (b'{"command":"save","x":"', MESSAGE_BYTES_MAX)]
)
def test_a_line_of_exactly_the_limit_is_read(start, limit_bytes):
    line = start + b"x" * (limit_bytes - len(start))
    assert Decoder().feed(line + b"\n", 0.0)[-1].reply.status in {"bad_arguments", "bad_message"}
    assert Decoder().feed(line, 0.0) == []
    assert Decoder().feed(line + b"x", 0.0)[-1].reply.status == "too_long"
    assert Decoder().feed(line + b"x\n", 0.0)[-1].reply.status == "too_long"


def test_the_end_of_the_bytes_after_whole_messages_is_no_message():
    for data in (b"save\n", b'{"command": "save"}\n', WHOLE):
        decoder = Decoder()
        assert decoder.feed(data, 0.0)[0].message == Save()
        assert decoder.finish() == [] and decoder.pending_bytes == 0


def test_empty_lines_before_the_first_message_settle_no_dialect():
    decoder = Decoder()
    assert decoder.feed(b"\r\n\t ", 0.0) == [] and decoder.dialect == ""
    assert decoder.feed(b" " + WHOLE, 0.0) == [Received(Save(), 1)] and decoder.dialect == "msgpack"


# ---- messages to bytes

AT = datetime(2026, 11, 29, 20, 0, 0, 123_456, tzinfo=UTC)
STAMP = "2026-11-29T20:00:00.123Z"

JSON = [
    (
        NightBegan(camera="cam0", score=12.5),
        {"type": "event", "event": "night_began", "status": "night_began", "timestamp": STAMP},
        {"camera": "cam0", "score": 12.5},
    ),
    (
        Save(camera="cam0"),
        {"type": "command", "command": "save", "status": "save", "timestamp": STAMP},
        {"camera": "cam0"},
    ),
    (Chunk(data=b"\0\xff", end=True), {"type": "chunk", "timestamp": STAMP}, {"bytes": "AP8=", "end": True}),
    (
        PreviewFrame(camera="cam1", jpeg=b"\xff\xd8", width=640, frame_id=7),
        {"type": "preview_frame", "status": "preview_frame", "timestamp": STAMP},
        {"camera_id": "cam1", "frame": "/9g=", "width": 640, "frame_id": 7},
    ),
]


@pytest.mark.parametrize(("message", "head", "data"), JSON, ids=lambda value: type(value).__name__)
def test_json_tells_the_kind_the_name_and_the_time_of_each_message(message, head, data):
    line = encode("json", message, "a", AT)
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    value = json.loads(line)
    assert {name: item for name, item in value.items() if name != "data"} == {**head, "id": "a"}
    assert value["data"].items() >= data.items() and "jpeg" not in value["data"]
    assert "id" not in json.loads(encode("json", message))


@pytest.mark.parametrize(
    ("reply", "kind", "status", "data"),
    [
        (
            Reply(status="saved", text="SAVED a", data={"id": 1}),
            "status",
            "snapshot_taken",
            {"message": "SAVED a", "id": 1},
        ),
        (Reply(status="snapshot_oldest", text="a"), "status", "snapshot_taken", {"message": "a"}),
        (Reply(status="status", data={"fps": 30}), "status", "status_report", {"fps": 30}),
        (Reply(status="clips", text="a\nb", data={"clips": []}), "status", "clips", {"clips": []}),
        (Reply(status="help", text="a\nb"), "status", "help", {"message": "a\nb"}),
        (Reply(ok=False, status="saved", text="a"), "error", "error", {"message": "a", "reason": "saved"}),
    ],
)
def test_a_reply_in_json_has_the_words_that_master_programs_know(reply, kind, status, data):
    """A table is for people: its data says the same."""
    value = json.loads(encode("json", reply))
    assert (value["type"], value["status"], value["data"]) == (kind, status, data)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Reply(status="saved", text="SAVED a.jpg"), "SAVED a.jpg\n"),
        (Reply(status="night_on"), "night_on\n"),
        (Chunk(data=b"a\nb"), "a\nb"),
        (
            NightBegan(camera="cam0", score=12.5, reason="a b"),
            f'{STAMP} night_began camera=cam0 score=12.5 frame_id=-1 captured_ns=0 reason="a b"\n',
        ),
        (SettingChanged(key="a.b", old=[1, "é"], new=None), f'{STAMP} setting_changed key=a.b old=[1,"é"]\n'),
        (
            PreviewFrame(camera="cam0", jpeg=b"abc"),
            f'{STAMP} preview_frame camera=cam0 jpeg="<3 bytes>" width=0 height=0 frame_id=-1 captured_ns=0\n',
        ),
        (Ping(), f"{STAMP} ping\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_text_is_one_line_of_words_for_people(message, text):
    assert encode("text", message, 5, AT).decode() == text


def test_messages_bear_the_time_of_now_unless_another_is_given():
    before = datetime.now(UTC)
    stamps = [json.loads(encode("json", Save()))["timestamp"], encode("text", Save()).decode().split()[0]]
    for stamp in stamps:
        assert stamp.endswith("Z") and len(stamp) == len(STAMP)
        assert -0.002 <= (datetime.fromisoformat(stamp) - before).total_seconds() < 60


def nested(depth):
    value = "deep"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_what_cannot_be_sent_is_answered_with_an_error_and_logged(dialect, caplog):
    data = encode_or_error(dialect, Reply(data={"deep": nested(100_000)}), 5)
    [logged] = caplog.messages
    assert logged.startswith("message cannot be sent: ") and "recursion" in logged
    reason = logged.removeprefix("message cannot be sent: ")
    answer = error(f"the answer cannot be sent: {reason}", "unsendable")
    if dialect == "msgpack":
        assert Decoder().feed(data, 0.0) == [Received(answer, 5)]
    else:
        value = json.loads(data)
        assert (value["data"], value["id"]) == ({"message": answer.data["message"], "reason": "unsendable"}, 5)


def test_names_that_are_no_unicode_are_shown_as_escapes():
    """A file named b"\\xff" made the answer that listed it unsendable: nobody answered, for ten minutes."""
    path = os.fsdecode(b"/cap/caf\xe9 \xff/\xc3\xbc.jpg")
    reply = Reply(text=f"Saved {path}", data={"paths": [path], path: ("\ud800",)})
    shown = r"/cap/caf\xe9 \xff/ü.jpg"
    [received] = Decoder().feed(encode("msgpack", reply, 5), 0.0)
    assert received == Received(Reply(text=f"Saved {shown}", data={"paths": [shown], shown: [r"\ud800"]}), 5)
    assert encode("text", reply).decode() == f"Saved {shown}\n"
    assert json.loads(encode("json", reply, 5))["data"]["paths"] == [shown]
    event = Saved(camera="cam0", path=path, kind="jpg")
    assert r'path="/cap/caf\\xe9 \\xff/ü.jpg"' in encode("text", event).decode()


def test_keys_that_are_no_text_become_text():
    """msgpack sent them, and the hub closed the connection of the process whose answer it was."""
    [received] = Decoder().feed(encode("msgpack", Reply(data={"cells": {1: 2.5}}), 5), 0.0)
    assert received == Received(Reply(data={"cells": {"1": 2.5}}), 5)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from(["\udcff", "\ud800a", nested(3), 2**64, object(), {1, 2}]),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.text(st.characters(), max_size=5) | st.integers() | st.tuples(st.integers()), inside)
    ),
    max_leaves=12,
)


@given(st.text(st.characters(), max_size=30), st.dictionaries(st.text(st.characters()), VALUES), st.booleans())
@hypothesis_settings(deadline=None, max_examples=50)
def test_every_answer_arrives_as_it_is_or_as_an_error(text, data, ok):
    [received] = Decoder().feed(encode_or_error("msgpack", Reply(ok=ok, text=text, data=data), 5), 0.0)
    assert isinstance(received, Received) and received.id == 5 and isinstance(received.message, Reply)
    for dialect in ("json", "text"):  # the hub sends what it received
        line = encode_or_error(dialect, received.message, 5)
        assert line.endswith(b"\n") and line.decode()
        assert dialect == "text" or json.loads(line)["id"] == 5


def test_what_can_be_sent_is_sent_as_it_is():
    assert encode_or_error("msgpack", NIGHT, 5, (1, 2)) == encode("msgpack", NIGHT, 5, event_id=(1, 2))


def wire_names(data):
    return [value["message"] for value in msgpack.Unpacker(io.BytesIO(data), max_buffer_size=0)]


@pytest.mark.parametrize(
    ("value", "is_long"),
    [
        *[(list(range(length)), length > 256) for length in (256, 257)],
        *[({str(key): 1 for key in range(length)}, length > 512) for length in (512, 513)],
        ({"a": [[0], {"b": ("x",) * 257}]}, True),
        ({"a": [[0], {"b": ("x",) * 256}], "c": "x" * 300}, False),
        ("x" * 1000, False),
    ],
)
def test_only_lists_and_maps_that_a_decoder_takes_go_as_msgpack(value, is_long):
    reply = Reply(data={"value": value, "b": b"" if is_long else b"\0"})
    data = encode("msgpack", reply, 1)
    assert wire_names(data) == (["part"] if is_long else ["reply"])
    [decoded] = Decoder().feed(data, 0.0)
    assert decoded.id == 1 and len(decoded.message.data["value"]) == len(value)


def test_a_message_longer_than_a_strangers_limit_goes_in_parts_that_fit():
    reply = Reply(text="x" * (2 * CHUNK_BYTES_MAX))
    parts = list(msgpack.Unpacker(io.BytesIO(encode("msgpack", reply, 1)), max_buffer_size=0))
    assert [(len(part["data"]), part["end"]) for part in parts[:2]] == [(CHUNK_BYTES_MAX, False)] * 2
    assert [part["end"] for part in parts[2:]] == [True]
    assert json.loads(b"".join(part["data"] for part in parts))["text"] == reply.text
    fitting = Reply(text="x" * (MESSAGE_BYTES_MAX - len(encode("msgpack", Reply(text="x" * 40_000))) + 40_000))
    data = encode("msgpack", fitting)
    assert len(data) == MESSAGE_BYTES_MAX and Decoder().feed(data, 0.0) == [Received(fitting)]


def test_a_message_longer_than_any_limit_is_an_error_with_both_numbers():
    text = "x" * PROCESS_BYTES_MAX
    with pytest.raises(ValueError, match=rf"^setting_changed is \d{{7}} bytes long, limit {PROCESS_BYTES_MAX}$"):
        encode("msgpack", SettingChanged(key=text))
    [decoded] = Decoder().feed(encode("msgpack", Reply(text=text), 5, event_id=(1, 2)), 0.0)
    assert decoded.event_id is None and decoded.message.status == "too_long"
    assert re.fullmatch(
        rf"ERROR: the answer is \d{{7}} bytes long, limit {PROCESS_BYTES_MAX}; ask for less", decoded.message.text
    )


# ---- any bytes


@given(st.binary(max_size=2000))
def test_no_bytes_break_the_decoder(data):
    decoder = Decoder()
    for item in [*decoder.feed(data, 0.0), *decoder.finish()]:
        assert isinstance(item, Received | Refused)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=10) | st.integers(-(2**63), 2**64 - 1), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(["save", "set", "hello", "heartbeat", "reply", "preview_frame"])
FIELDS = st.dictionaries(st.sampled_from(["id", "camera", "role", "changes", "x"]), VALUES)


@given(NAMES | VALUES, FIELDS)
def test_no_msgpack_value_breaks_the_decoder(name, fields):
    for item in Decoder().feed(msgpack.packb({"message": name, **fields}, unicode_errors="surrogatepass"), 0.0):
        assert isinstance(item, Received | Refused)


def test_seeded_garbage_never_raises(seed=20261121):
    rng = random.Random(seed)
    for _ in range(3000):
        decoder = Decoder()
        for _ in range(rng.randrange(1, 4)):
            decoder.feed(rng.randbytes(rng.randrange(1, 200)), 0.0)
