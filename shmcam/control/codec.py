"""Bytes to messages: three dialects, told apart by the first byte of a connection. Holds no sockets.

    0x80-0x8f, 0xde, 0xdf   msgpack maps, one after the other     between processes
    {                       JSON objects, one a line              master programs
    below 0x80, or UTF-8    text, one command a line              people, shells

Rules: a Decoder never raises on what a stranger sends and never holds more than its limit. What it cannot read it
returns as Refused; `fatal` means the byte stream cannot be trusted any more and the connection should be closed.

One whole message as it came: a message of ours, or a refusal in words. No state.

Messages to bytes, in the three dialects that `shmcam.control.codec` reads.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgpack
import msgspec

from shmcam.control.messages import (
    MESSAGE_BYTES_MAX,
    PROCESS_BYTES_MAX,
    Chunk,
    Event,
    Message,
    PreviewFrame,
    Reply,
    error,
    values_of,
    wire_name,
)
from shmcam.control.parser import UnknownCommandError, from_line, from_object, from_wire


@dataclass(frozen=True, slots=True)
class Received:
    """A message, as it came."""

    message: Message
    id: Any = None
    """What the sender wants to find in the answer; None: nothing."""
    again: bool = False
    """The hub was told before, but may have been restarted since: remember it, do not pass it on."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Bytes that were no message."""

    reply: Reply
    id: Any = None
    fatal: bool = False


Decoded = Received | Refused


def from_map(value: Any) -> Decoded:
    """Read what a process sent."""
    if not isinstance(value, dict):
        return Refused(error("malformed msgpack: a message is a map", "bad_message"), fatal=True)
    return _checked(from_wire, value, _ident(value), again=value.get("again") is True)


def from_json(line: bytes) -> Decoded:
    """Read one object of a master program."""
    try:
        value = msgspec.json.decode(line)
    except (ValueError, RecursionError) as problem:  # DecodeError and bad UTF-8 are ValueErrors
        return Refused(error(f"malformed JSON: {short(problem)}", "bad_message"))
    if not isinstance(value, dict):
        return Refused(error('malformed JSON: expected an object such as {"command": "status"}', "bad_message"))
    return _checked(from_object, value, _ident(value))


def from_text(line: bytes, cameras: Collection[str], *, suggest: bool) -> Decoded:
    """Read one line of a person."""
    try:
        words = line.decode()
    except UnicodeDecodeError:
        return Refused(error("not UTF-8", "bad_message"))
    return _checked(lambda given: (from_line(given, cameras, suggest=suggest), None), words, None)


def _checked(read: Any, given: Any, ident: Any, *, again: bool = False) -> Decoded:
    try:
        message, ident = read(given)
    except UnknownCommandError as problem:
        return Refused(Reply(ok=False, status="unknown_command", text=str(problem)), ident)
    except (ValueError, TypeError, RecursionError) as problem:
        return Refused(error(str(problem), "bad_arguments"), ident)
    return Received(message, _ident({"id": ident}), again)


def _ident(value: dict[str, Any]) -> Any:
    """Take an id only if it is small: it is kept while the command is under way."""
    ident = value.get("id")
    small = isinstance(ident, int) and abs(ident) < 2**63
    return ident if small or (isinstance(ident, str) and len(ident) <= 64) else None


def short(problem: BaseException) -> str:
    """Return what is wrong in at most 200 characters."""
    return (str(problem) or type(problem).__name__)[:200]


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


log = logging.getLogger(__name__)


def encode(
    dialect: str, message: Message, ident: Any = None, at_utc: datetime | None = None, *, again: bool = False
) -> bytes:
    """Write one message; `at_utc` is the time shown in JSON and text (now, if not given).

    `again` marks an event of RETAINED that the hub was told before. *Raises* ValueError for a message (not a Reply,
    which is replaced by an error) longer than PROCESS_BYTES_MAX.
    """
    if dialect == "msgpack":
        return _sized(_pack(message, ident, again=again), message, ident)
    when = (at_utc or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return _json(message, ident, when) if dialect == "json" else _text(message, when)


def encoded_or_error(dialect: str, message: Message, ident: Any) -> bytes:
    """Encode; what cannot be (too long, an integer beyond 64 bits) becomes an error that says so."""
    try:
        return encode(dialect, message, ident)
    except (ValueError, OverflowError, TypeError) as problem:
        log.error("message cannot be sent: %s", problem)
        return encode(dialect, error(f"the answer cannot be sent: {problem}", "unsendable"), ident)


def _pack(message: Message, ident: Any, *, again: bool = False) -> bytes:
    values = {"message": wire_name(message), **values_of(message)}
    if ident is not None:
        values["id"] = ident
    if again:
        values["again"] = True
    packed: bytes = msgpack.packb(values, default=_number)
    return packed


def _number(value: Any) -> Any:
    """Let numpy's numbers through as Python's, so that a figure of a heartbeat cannot stop a process."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


def _sized(packed: bytes, message: Message, ident: Any) -> bytes:
    """Replace what the other end would refuse for its length by a message that says so."""
    if len(packed) <= PROCESS_BYTES_MAX:
        return packed
    if not isinstance(message, Reply):
        raise ValueError(f"{wire_name(message)} is {len(packed)} bytes long, limit {PROCESS_BYTES_MAX}")
    return _pack(
        error(f"the answer is {len(packed)} bytes long, limit {PROCESS_BYTES_MAX}; ask for less", "too_long"), ident
    )


def _json(message: Message, ident: Any, when: str) -> bytes:
    shown: dict[str, Any]
    if isinstance(message, Reply):
        shown = {"type": "status" if message.ok else "error", "status": message.status, "timestamp": when}
        one_line = message.text and "\n" not in message.text  # tables are for people; their data says the same
        shown["data"] = {"message": message.text, **message.data} if one_line or not message.data else message.data
    elif isinstance(message, PreviewFrame):
        data = values_of(message)
        picture = base64.b64encode(data.pop("jpeg")).decode()
        shown = {
            "type": "preview_frame",
            "timestamp": when,
            "data": {"camera_id": message.camera, "frame": picture, **data},
        }
    elif isinstance(message, Chunk):
        picture = base64.b64encode(message.data).decode()
        shown = {"type": "chunk", "timestamp": when, "data": {"bytes": picture, "end": message.end}}
    else:
        kind = "event" if isinstance(message, Event) else "command"
        shown = {"type": kind, kind: wire_name(message), "status": wire_name(message), "timestamp": when}
        shown["data"] = values_of(message)
    if ident is not None:
        shown["id"] = ident
    return msgspec.json.encode(shown) + b"\n"


def _text(message: Message, when: str) -> bytes:
    if isinstance(message, Reply):
        return (message.text or message.status).encode() + b"\n"
    if isinstance(message, Chunk):
        return message.data
    shown = " ".join(f"{name}={_word(value)}" for name, value in values_of(message).items() if value not in ("", None))
    return f"{when} {wire_name(message)} {shown}".rstrip().encode() + b"\n"


def _word(value: Any) -> str:
    """Show one value of an event on one line: quoted if it has spaces or control characters."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return shown if shown.isprintable() and " " not in shown else msgspec.json.encode(shown).decode()
