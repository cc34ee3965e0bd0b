"""Messages to bytes, in the three dialects that `control.codec` reads."""

from __future__ import annotations

import base64
import logging
from datetime import UTC, datetime
from typing import Any

import msgpack
import msgspec

from control.messages import PROCESS_BYTES_MAX, Chunk, Event, Message, PreviewFrame, Reply, error, values_of, wire_name

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
