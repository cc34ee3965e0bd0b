"""Bytes in, messages out: whole, byte by byte, malformed, and far too much."""

import base64
import json
import random
import tracemalloc
from pathlib import Path

import msgpack
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmcam.control.codec import COMPLETE_WITHIN_S, LINE_BYTES_MAX, Decoder, Received, Refused, dialect_of, encode
from shmcam.control.messages import (
    MESSAGE_BYTES_MAX,
    PROCESS_BYTES_MAX,
    Chunk,
    Heartbeat,
    Hello,
    NightBegan,
    Part,
    PreviewFrame,
    Record,
    Reply,
    Save,
    Set,
    SettingChanged,
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


def test_text_shows_events_on_one_line_whatever_they_hold():
    line = encode("text", NightBegan(camera="cam0", reason="two\nlines and \x1b[2J"))
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    assert b"night_began camera=cam0" in line


@given(st.binary(max_size=2000))
def test_no_bytes_break_the_decoder(data):
    decoder = Decoder()
    for item in [*decoder.feed(data, 0.0), *decoder.finish()]:
        assert isinstance(item, Received | Refused)


@given(st.data())
def test_no_msgpack_value_breaks_the_decoder(data):
    values = st.recursive(
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
    fields = data.draw(st.dictionaries(st.sampled_from(["message", "id", "camera", "role", "changes", "x"]), values))
    fields["message"] = data.draw(
        st.sampled_from(["save", "set", "hello", "heartbeat", "reply", "preview_frame"]) | values
    )
    for item in Decoder().feed(msgpack.packb(fields, unicode_errors="surrogatepass"), 0.0):
        assert isinstance(item, Received | Refused)


def test_seeded_garbage_never_raises(seed=20261121):
    rng = random.Random(seed)
    for _ in range(3000):
        decoder = Decoder()
        for _ in range(rng.randrange(1, 4)):
            decoder.feed(rng.randbytes(rng.randrange(1, 200)), 0.0)
