"""Turns bytes into messages and messages into bytes, in three dialects. Holds no sockets.

The first byte of a connection tells its dialect:

    0x80-0x8f, 0xde, 0xdf   msgpack maps, one after the other     between processes
    {                       JSON objects, one a line              master programs
    below 0x80, or UTF-8    text, one command a line              people, shells

A msgpack message with a long list, or of many bytes, is sent as its JSON, cut into `Part`s. msgpack allocates a list
from its header, so long lists are refused; JSON allocates only what has come.

Rules: a Decoder never raises on untrusted bytes and never holds more than its limit. It returns bytes that are no
message as Refused; `fatal` means that the byte stream is not reliable any more and the connection should be closed.

What must change together: each dialect has its half here in `Decoder` and its half in `encode`.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

import msgpack
import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from shmcam.control.messages import (
    CHUNK_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PROCESS_BYTES_MAX,
    Chunk,
    Event,
    EventId,
    Message,
    Part,
    PreviewFrame,
    Reply,
    error,
    wire_name,
)
from shmcam.control.parser import UnknownCommandError, parse_line, parse_map, parse_object
from shmcam.runtime.non_utf8_escapes import to_readable

log = logging.getLogger(__name__)

COMPLETE_WITHIN_S = 5.0
"""Longest time from a message's first byte to its last; then its sender is dropped (a slow-loris holds memory)."""

LINE_BYTES_MAX = 8 * 1024
"""Longest line of the text dialect; the longest sensible command is some hundred bytes."""

UTF8_FIRST, UTF8_LAST = 0xC2, 0xF4
"""First bytes of letters beyond ASCII (RFC 3629): a person typed them, and gets a text answer."""

SUGGESTIONS_MAX = 5
"""Mistyped lines in a row that are answered with the nearest command."""

READ_BYTES = 16 * 1024
"""Bytes a Decoder takes at once; it unpacks after each piece, which keeps its buffer near the limit."""

VALUE_LIMITS: dict[str, Any] = {
    "max_array_len": 256,  # arrays are allocated from their header: 5 KB of nested headers cost 76 MB without this
    "max_map_len": 512,
    "max_str_len": MESSAGE_BYTES_MAX,
    "max_bin_len": MESSAGE_BYTES_MAX,
    "max_ext_len": 0,
    "strict_map_key": True,
}
STREAM_LIMITS: dict[str, Any] = {
    "max_buffer_size": MESSAGE_BYTES_MAX + READ_BYTES,
    "read_size": READ_BYTES,  # allocated at once for each connection; it grows where a message is longer
}


# ---- bytes to messages


class Received(Struct, frozen=True):
    """A message, as it came."""

    message: Message
    id: Any = None
    """The sender's id for the answer; None: no id."""
    event_id: EventId | None = None
    """Of an event of a process of ours; see messages.EventId."""


class Refused(Struct, frozen=True):
    """Bytes that were no message."""

    reply: Reply
    id: Any = None
    fatal: bool = False
    is_answer: bool = False
    """True for the answer of a process, which somebody waits for."""


Decoded = Received | Refused


class Decoder:
    """The decoder of one connection's bytes, at either end."""

    def __init__(self, cameras: Collection[str] = (), *, limit_bytes: int = MESSAGE_BYTES_MAX) -> None:
        self.dialect = ""
        """"msgpack", "json" or "text"; empty before the first byte."""
        self.limit_bytes = limit_bytes
        self._cameras = cameras
        self._line = bytearray()
        self._parts = bytearray()
        """The parts of a long message that have come."""
        self._unpacker: msgpack.Unpacker | None = None
        self._refused_lines = 0
        """Refused text lines in a row."""
        self._fed_bytes = 0
        self._incomplete_since_s: float | None = None

    def feed(self, data: bytes, now_s: float) -> list[Decoded]:
        """Takes bytes in any pieces; returns the messages they completed. `now_s`: any steadily rising clock."""
        decoded: list[Decoded] = []
        for start in range(0, len(data), READ_BYTES):
            decoded += self._feed_piece(data[start : start + READ_BYTES])
            if _ends_fatally(decoded):
                break
        if not self.pending_bytes:
            self._incomplete_since_s = None
        elif decoded or self._incomplete_since_s is None:
            self._incomplete_since_s = now_s
        return decoded

    def finish(self) -> list[Decoded]:
        """Ends the bytes; returns a last text or JSON line that came without its newline."""
        return self._feed_piece(b"\n") if self._line else []

    def is_overdue(self, now_s: float) -> bool:
        """Returns whether a message was begun and not completed in time."""
        return self._incomplete_since_s is not None and now_s - self._incomplete_since_s > COMPLETE_WITHIN_S

    def restart_timer(self, now_s: float) -> None:
        """Gives an incomplete message its whole time again, after a pause in reading that is not the sender's fault."""
        if self._incomplete_since_s is not None:
            self._incomplete_since_s = now_s

    @property
    def pending_bytes(self) -> int:
        """The bytes of a message not complete yet."""
        if self._unpacker is None:
            return len(self._line)
        return self._fed_bytes - int(self._unpacker.tell()) + len(self._parts)

    def _feed_piece(self, data: bytes) -> list[Decoded]:
        if not self.dialect:
            data = data.lstrip(b"\r\n\t ")
            if not data:
                return []
            self.dialect = dialect_of(data[0])
        if self.dialect == "msgpack":
            return self._unpack(data)
        if not self.dialect:
            return [Refused(error("not msgpack, JSON or text", "bad_message"), fatal=True)]
        return self._split_lines(data)

    def _unpack(self, data: bytes) -> list[Decoded]:
        decoded: list[Decoded] = []
        unpacker = self._unpacker = self._unpacker or msgpack.Unpacker(raw=False, **VALUE_LIMITS, **STREAM_LIMITS)
        try:
            unpacker.feed(data)
            self._fed_bytes += len(data)
            for value in unpacker:
                decoded += self._join_parts(decode_map(value))
                if _ends_fatally(decoded):
                    return decoded
        except (ValueError, msgpack.UnpackException, RecursionError) as problem:
            # ValueError covers limits, bad UTF-8, bad JSON, unhashable keys, stack and format errors of msgpack
            return [*decoded, Refused(error(f"malformed msgpack: {shorten(problem)}", "bad_message"), fatal=True)]
        if self._fed_bytes - unpacker.tell() > MESSAGE_BYTES_MAX:
            decoded.append(self._refuse_too_long(MESSAGE_BYTES_MAX))
        return decoded

    def _join_parts(self, decoded: Decoded) -> list[Decoded]:
        """Keeps a part until the last one; returns any other message, and the message that the parts make."""
        if isinstance(decoded, Refused) or not isinstance(decoded.message, Part):
            return [decoded]
        self._parts += decoded.message.data
        if len(self._parts) > self.limit_bytes:
            return [self._refuse_too_long(self.limit_bytes)]
        if not decoded.message.end:
            return []
        text = bytes(self._parts)
        self._parts.clear()
        joined = decode_map(msgspec.json.decode(text))
        if isinstance(joined, Received) and isinstance(joined.message, Part):
            return [Refused(error("malformed msgpack: a part within parts", "bad_message"), fatal=True)]
        return [joined]

    def _split_lines(self, data: bytes) -> list[Decoded]:
        limit_bytes = LINE_BYTES_MAX if self.dialect == "text" else self.limit_bytes
        decoded: list[Decoded] = []
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            if len(line) > limit_bytes:
                return [*decoded, self._refuse_too_long(limit_bytes)]
            if stripped := bytes(line).strip():
                decoded.append(decode_json(stripped) if self.dialect == "json" else self._decode_text(stripped))
        return [*decoded, self._refuse_too_long(limit_bytes)] if len(rest) > limit_bytes else decoded

    def _decode_text(self, line: bytes) -> Decoded:
        """Decodes one line; after several mistyped ones without a suggestion, which costs as much as ten commands."""
        decoded = decode_text(line, self._cameras, suggest=self._refused_lines < SUGGESTIONS_MAX)
        self._refused_lines = self._refused_lines + 1 if isinstance(decoded, Refused) else 0
        return decoded

    def _refuse_too_long(self, limit_bytes: int) -> Refused:
        self._line.clear()
        self._parts.clear()
        return Refused(error(f"message longer than {limit_bytes} bytes", "too_long"), fatal=True)


def _ends_fatally(decoded: list[Decoded]) -> bool:
    """Returns whether nothing after these may be read."""
    return any(isinstance(item, Refused) and item.fatal for item in decoded[-1:])


def dialect_of(first: int) -> str:
    """Returns the dialect that a connection's first byte stands for; "" if none."""
    if 0x80 <= first <= 0x8F or first in {0xDE, 0xDF}:
        return "msgpack"
    if first >= 0x80:
        return "text" if UTF8_FIRST <= first <= UTF8_LAST else ""
    return "json" if first == ord("{") else "text"


def decode_map(value: Any) -> Decoded:
    """Decodes one unpacked value of a process."""
    if not isinstance(value, dict):
        return Refused(error("malformed msgpack: a message is a map", "bad_message"), fatal=True)
    decoded = _decode_with(parse_map, value, _id_of(value), event_id=_event_id_of(value))
    if isinstance(decoded, Refused) and value.get("message") in ("reply", "chunk"):
        return replace(decoded, is_answer=True)
    return decoded


def decode_json(line: bytes) -> Decoded:
    """Decodes one object of a master program."""
    try:
        value = msgspec.json.decode(line)
    except (ValueError, RecursionError) as problem:  # DecodeError and bad UTF-8 are ValueErrors
        return Refused(error(f"malformed JSON: {shorten(problem)}", "bad_message"))
    if not isinstance(value, dict):
        shown = f", got {value[:60]!r}" if isinstance(value, str) else ""
        return Refused(error(f'expected an object such as {{"command": "get_status"}}{shown}', "bad_message"))
    return _decode_with(parse_object, value, _id_of(value))


def decode_text(line: bytes, cameras: Collection[str], *, suggest: bool) -> Decoded:
    """Decodes one line of a person."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return Refused(error("not UTF-8", "bad_message"))
    return _decode_with(lambda words: (parse_line(words, cameras, suggest=suggest), None), text, None)


def _decode_with(
    parse: Callable[[Any], tuple[Message, Any]], value: Any, ident: Any, *, event_id: EventId | None = None
) -> Decoded:
    try:
        message, ident = parse(value)
    except UnknownCommandError as problem:
        return Refused(Reply(ok=False, status="unknown_command", text=str(problem)), ident)
    except (ValueError, TypeError, RecursionError) as problem:
        return Refused(error(str(problem), "bad_arguments"), ident)
    return Received(message, _id_of({"id": ident}), event_id)


def _event_id_of(value: dict[str, Any]) -> EventId | None:
    """Returns a map's event id, or None if it has none that is well formed."""
    event_id = value.get("event_id")
    if isinstance(event_id, list) and len(event_id) == 2 and all(type(n) is int and 0 < n < 2**63 for n in event_id):
        return event_id[0], event_id[1]
    return None


def _id_of(value: dict[str, Any]) -> Any:
    """Returns a map's id, or None if it is long: the hub keeps the id while the command is pending."""
    ident = value.get("id")
    is_small = isinstance(ident, int) and abs(ident) < 2**63
    return ident if is_small or (isinstance(ident, str) and len(ident) <= 64) else None


def shorten(problem: BaseException) -> str:
    """Returns an exception's text, at most 200 characters of it."""
    return (str(problem) or type(problem).__name__)[:200]


# ---- messages to bytes

UNSENDABLE = (ValueError, OverflowError, TypeError, RecursionError)
"""What `encode` raises for a message that has no form on the wire: too long, nested too deep, beyond 64 bits …"""


def encode(
    dialect: str,
    message: Message,
    ident: Any = None,
    at_utc: datetime | None = None,
    *,
    event_id: EventId | None = None,
) -> bytes:
    """Encodes one message; `at_utc` is the time shown in JSON and text (None: now).

    People and master programs get no event ids. Names of files that are no Unicode become readable escapes.

    Raises: ValueError for a message longer than PROCESS_BYTES_MAX that is not a Reply, and with OverflowError,
    TypeError and RecursionError for values that have no form; a Reply of that length becomes an error.
    """
    timestamp = ""
    if dialect != "msgpack":
        timestamp = (at_utc or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        return _encode(dialect, message, ident, timestamp, event_id)
    except UnicodeEncodeError:
        readable = replace(message, **to_readable(asdict(message)))
        return _encode(dialect, readable, ident, timestamp, event_id)


def encode_or_error(dialect: str, message: Message, ident: Any, event_id: EventId | None = None) -> bytes:
    """Encodes a message, or an error in its place if it cannot be sent (too long, an integer beyond 64 bits)."""
    try:
        return encode(dialect, message, ident, event_id=event_id)
    except UNSENDABLE as problem:
        log.error("message cannot be sent: %s", shorten(problem))
        return encode(dialect, error(f"the answer cannot be sent: {shorten(problem)}", "unsendable"), ident)


def _encode(dialect: str, message: Message, ident: Any, timestamp: str, event_id: EventId | None) -> bytes:
    if dialect == "msgpack":
        return _encode_msgpack(message, ident, event_id)
    return _encode_json(message, ident, timestamp) if dialect == "json" else _encode_text(message, timestamp)


def _encode_msgpack(message: Message, ident: Any, event_id: EventId | None) -> bytes:
    values = {"message": wire_name(message), **asdict(message)}
    if ident is not None:
        values["id"] = ident
    if event_id is not None:
        values["event_id"] = event_id
    packed = _pack(values)
    if len(packed) <= MESSAGE_BYTES_MAX and _is_decodable(packed):
        return packed
    text = msgspec.json.encode(values, enc_hook=_to_number)
    if len(text) > PROCESS_BYTES_MAX:
        problem = f"{len(text)} bytes long, limit {PROCESS_BYTES_MAX}"
        if not isinstance(message, Reply):
            raise ValueError(f"{wire_name(message)} is {problem}")
        return _encode_msgpack(error(f"the answer is {problem}; ask for less", "too_long"), ident, None)
    starts = range(0, len(text), CHUNK_BYTES_MAX)
    parts = [Part(data=text[at : at + CHUNK_BYTES_MAX], end=at == starts[-1]) for at in starts]
    return b"".join(_pack({"message": wire_name(part), **asdict(part)}) for part in parts)


def _pack(values: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(values, default=_to_number)
    return packed


def _is_decodable(packed: bytes) -> bool:
    """Returns whether a Decoder takes it: no list or map is too long, and no key a number, which JSON makes text."""
    try:
        msgpack.unpackb(packed, raw=False, **VALUE_LIMITS)
    except ValueError:
        return False
    return True


def _to_number(value: Any) -> Any:
    """Turns numpy's numbers into Python's, so that a figure of a heartbeat cannot stop a process."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


MASTER_STATUSES = {
    **dict.fromkeys(("saved", "saved_oldest", "snapshot_saved", "snapshot_oldest"), "snapshot_taken"),
    "status": "status_report",
}
"""Our status words → those that master programs of the former camera module know."""


def _encode_json(message: Message, ident: Any, timestamp: str) -> bytes:
    value: dict[str, Any]
    if isinstance(message, Reply):
        status = MASTER_STATUSES.get(message.status, message.status) if message.ok else "error"
        value = {"type": "status" if message.ok else "error", "status": status, "timestamp": timestamp}
        one_line = message.text and "\n" not in message.text  # tables are for people; their data says the same
        value["data"] = {"message": message.text, **message.data} if one_line or not message.data else message.data
        if not message.ok:
            value["data"] = {**value["data"], "reason": message.status}
    elif isinstance(message, PreviewFrame):
        fields = asdict(message)
        jpeg_base64 = base64.b64encode(fields.pop("jpeg")).decode()
        value = {
            "type": "preview_frame",
            "status": "preview_frame",
            "timestamp": timestamp,
            "data": {"camera_id": message.camera, "frame": jpeg_base64, **fields},
        }
    elif isinstance(message, Chunk):
        data_base64 = base64.b64encode(message.data).decode()
        value = {"type": "chunk", "timestamp": timestamp, "data": {"bytes": data_base64, "end": message.end}}
    else:
        kind = "event" if isinstance(message, Event) else "command"
        value = {"type": kind, kind: wire_name(message), "status": wire_name(message), "timestamp": timestamp}
        value["data"] = asdict(message)
    if ident is not None:
        value["id"] = ident
    return msgspec.json.encode(value) + b"\n"


def _encode_text(message: Message, timestamp: str) -> bytes:
    if isinstance(message, Reply):
        return (message.text or message.status).encode() + b"\n"
    if isinstance(message, Chunk):
        return message.data
    fields = asdict(message).items()
    words = " ".join(f"{name}={_show_value(value)}" for name, value in fields if value not in ("", None))
    return f"{timestamp} {wire_name(message)} {words}".rstrip().encode() + b"\n"


def _show_value(value: Any) -> str:
    """Returns one value of an event as one word: quoted if it has spaces or control characters."""
    if isinstance(value, bytes):
        value = f"<{len(value)} bytes>"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if text.isprintable() and " " not in text else msgspec.json.encode(text).decode()
