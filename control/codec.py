"""Bytes to messages: three dialects, told apart by the first byte of a connection. Holds no sockets.

    0x80-0x8f, 0xde, 0xdf   msgpack maps, one after the other     between processes
    {                       JSON objects, one a line              master programs
    below 0x80, or UTF-8    text, one command a line              people, shells

Rules: a Decoder never raises on what a stranger sends and never holds more than its limit. What it cannot read it
returns as Refused; `fatal` means the byte stream cannot be trusted any more and the connection should be closed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgpack

from control.decoded import Decoded, Received, Refused, from_json, from_map, from_text, short
from control.messages import MESSAGE_BYTES_MAX, PROCESS_BYTES_MAX, error

__all__ = ["Decoded", "Decoder", "Received", "Refused", "dialect_of"]

COMPLETE_WITHIN_S = 5.0
"""A message whose first byte came must be complete by then, or its sender is dropped (a slow-loris holds memory)."""

LINE_BYTES_MAX = 8 * 1024
"""Longest line of the text dialect; the longest sensible command is some hundred bytes."""

UTF8_FIRST, UTF8_LAST = 0xC2, 0xF4
"""First bytes of letters beyond ASCII (RFC 3629): somebody typed them, and gets a text answer."""

SUGGESTIONS_MAX = 5
"""Mistyped lines in a row that are answered with the nearest command."""

READ_BYTES = 16 * 1024
"""Bytes handed to a Decoder at once; unpacking after each piece keeps its buffer near the limit."""

MSGPACK_LIMITS: dict[str, Any] = {
    "max_buffer_size": PROCESS_BYTES_MAX + READ_BYTES,
    "read_size": READ_BYTES,  # allocated at once for each connection; it grows where a message is longer
    "max_array_len": 256,  # arrays are allocated from their header: 5 KB of nested headers cost 76 MB without this
    "max_map_len": 512,
    "max_str_len": PROCESS_BYTES_MAX,
    "max_bin_len": MESSAGE_BYTES_MAX,
    "max_ext_len": 0,
    "strict_map_key": True,
}


class Decoder:
    """One connection's bytes, either way."""

    def __init__(self, cameras: Collection[str] = (), *, limit: int = MESSAGE_BYTES_MAX) -> None:
        self.dialect = ""
        """"msgpack", "json" or "text"; empty before the first byte."""
        self.limit = limit
        self._cameras = cameras
        self._line = bytearray()
        self._unpacker: msgpack.Unpacker | None = None
        self._unknown = 0
        self._fed = 0
        self._incomplete_since_s: float | None = None

    def feed(self, data: bytes, now_s: float) -> list[Decoded]:
        """Take bytes as they arrive (any pieces); return what became complete. `now_s`: any steadily rising clock."""
        found: list[Decoded] = []
        for start in range(0, len(data), READ_BYTES):
            found += self._piece(data[start : start + READ_BYTES])
            if any(isinstance(one, Refused) and one.fatal for one in found[-1:]):
                break
        if not self.pending_bytes:
            self._incomplete_since_s = None
        elif found or self._incomplete_since_s is None:
            self._incomplete_since_s = now_s
        return found

    def finish(self) -> list[Decoded]:
        """Tell that no more bytes come: a last text or JSON line without its newline counts."""
        return self._piece(b"\n") if self._line else []

    def overdue(self, now_s: float) -> bool:
        """Tell whether a message was begun and not completed in time."""
        return self._incomplete_since_s is not None and now_s - self._incomplete_since_s > COMPLETE_WITHIN_S

    def resumed(self, now_s: float) -> None:
        """Tell that nothing was fed for a while because nobody read: not the sender's fault."""
        if self._incomplete_since_s is not None:
            self._incomplete_since_s = now_s

    @property
    def pending_bytes(self) -> int:
        """Bytes of a message not complete yet."""
        return self._fed - self._unpacker.tell() if self._unpacker else len(self._line)

    def _piece(self, data: bytes) -> list[Decoded]:
        if not self.dialect:
            data = data.lstrip(b"\r\n\t ")
            if not data:
                return []
            self.dialect = dialect_of(data[0])
        if self.dialect == "msgpack":
            return self._unpack(data)
        if not self.dialect:
            return [Refused(error("not msgpack, JSON or text", "bad_message"), fatal=True)]
        return self._lines(data)

    def _unpack(self, data: bytes) -> list[Decoded]:
        found: list[Decoded] = []
        unpacker = self._unpacker = self._unpacker or msgpack.Unpacker(raw=False, **MSGPACK_LIMITS)
        try:
            unpacker.feed(data)
            self._fed += len(data)
            for value in unpacker:
                found.append(from_map(value))
        except (ValueError, msgpack.UnpackException, RecursionError) as problem:
            # ValueError covers limits, bad UTF-8, unhashable keys, stack and format errors of msgpack
            found.append(Refused(error(f"malformed msgpack: {short(problem)}", "bad_message"), fatal=True))
        if self.pending_bytes > self.limit and not (found and isinstance(found[-1], Refused) and found[-1].fatal):
            found.append(self._too_long())
        return found

    def _lines(self, data: bytes) -> list[Decoded]:
        limit = LINE_BYTES_MAX if self.dialect == "text" else self.limit
        found: list[Decoded] = []
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            if len(line) > limit:
                return [*found, self._too_long()]
            if stripped := bytes(line).strip():
                found.append(from_json(stripped) if self.dialect == "json" else self._from_text(stripped))
        return [*found, self._too_long()] if len(rest) > limit else found

    def _from_text(self, line: bytes) -> Decoded:
        """Read one line; who mistypes on and on gets no more suggestions (each costs as much as ten commands)."""
        found = from_text(line, self._cameras, suggest=self._unknown < SUGGESTIONS_MAX)
        self._unknown = self._unknown + 1 if isinstance(found, Refused) else 0
        return found

    def _too_long(self) -> Refused:
        limit = LINE_BYTES_MAX if self.dialect == "text" else self.limit
        self._line.clear()
        return Refused(error(f"message longer than {limit} bytes", "too_long"), fatal=True)


def dialect_of(first: int) -> str:
    """Return the dialect that a connection's first byte stands for; "" if none."""
    if 0x80 <= first <= 0x8F or first in {0xDE, 0xDF}:
        return "msgpack"
    if first >= 0x80:
        return "text" if UTF8_FIRST <= first <= UTF8_LAST else ""
    return "json" if first == ord("{") else "text"
