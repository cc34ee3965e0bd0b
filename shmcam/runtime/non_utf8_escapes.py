r"""Text that can always be written: what is no Unicode, such as a file name in another encoding, becomes escapes.

Python keeps the bytes of such a name as half surrogates (PEP 383), which no JSON, msgpack or UTF-8 may hold. They are
shown as `\xff`, everywhere in the same way. A name like that is shown only: no file of ours has one, and no message
needs to name it.
"""

from __future__ import annotations

import codecs
from typing import Any

ESCAPE = "shmcam.escape"
"""The error handler, for `errors=` of str.encode and of text streams; "?" where only the locale lacks a character."""


def _escape(problem: UnicodeError) -> tuple[str, int]:
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    return "".join(map(_escape_character, problem.object[problem.start : problem.end])), problem.end


def _escape_character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if 0xD800 <= code <= 0xDFFF else "?"


codecs.register_error(ESCAPE, _escape)


def to_readable(value: Any) -> Any:
    """Returns a value with all text in it escaped where it is no Unicode. Raises: RecursionError."""
    if isinstance(value, str):
        return value.encode(errors=ESCAPE).decode()
    if isinstance(value, dict):
        return {to_readable(name): to_readable(inside) for name, inside in value.items()}
    return [to_readable(inside) for inside in value] if isinstance(value, list | tuple) else value


def encode_json(value: Any) -> bytes:
    """Returns any value that msgspec can encode as JSON. Raises: TypeError, RecursionError."""
    import msgspec  # the command line starts without it

    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(to_readable(msgspec.to_builtins(value)))
