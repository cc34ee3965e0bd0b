"""Text that is no Unicode, as in file names of another encoding, is shown as escapes and stops nobody."""

from __future__ import annotations

import io
import os
import sys

import msgspec
import pytest

from shmcam.runtime.non_utf8_escapes import ESCAPE, encode_json, to_readable

NAME = os.fsdecode(b"caf\xe9 \xff \xc3\xbc")
SHOWN = r"caf\xe9 \xff ü"


class Row(msgspec.Struct):
    path: str
    sizes: dict[str, int]


def test_a_value_is_readable_down_to_its_keys():
    value = {NAME: [NAME, (NAME, 1)], "plain ü": b"\xff", "half": "\ud800\udc80"}
    assert to_readable(value) == {SHOWN: [SHOWN, [SHOWN, 1]], "plain ü": b"\xff", "half": r"\ud800\x80"}


@pytest.mark.parametrize("value", [{"path": NAME, "sizes": {NAME: 1}}, Row(NAME, {NAME: 1})])
def test_json_of_anything_can_be_encoded(value):
    """A page that listed such a name answered 500."""
    assert msgspec.json.decode(encode_json(value)) == {"path": SHOWN, "sizes": {SHOWN: 1}}
    assert encode_json({"n": [float("nan"), 2**80]}) == b'{"n":[null,1208925819614629174706176]}'


@pytest.mark.parametrize(("encoding", "text"), [("utf-8", SHOWN), ("ascii", r"caf\xe9 \xff ?"), ("latin-1", SHOWN)])
def test_a_stream_of_any_encoding_takes_it(encoding, text):
    binary = io.BytesIO()
    with io.TextIOWrapper(binary, encoding=encoding, errors=ESCAPE) as stream:
        print(NAME, end="", file=stream, flush=True)
        assert binary.getvalue().decode(encoding) == text


def test_it_only_helps_to_write():
    assert sys.getfilesystemencodeerrors() == "surrogateescape"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode(errors=ESCAPE)
