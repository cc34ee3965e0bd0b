r"""The listener's side of supervisord's event protocol, without I/O (https://supervisord.org/events.html).

we: READY\n   it: "ver:3.0 … eventname:PROCESS_STATE_EXITED len:84\n" + 84 bytes   we: RESULT 2\nOK
"""

from __future__ import annotations

from msgspec import Struct

READY = b"READY\n"
DONE = b"RESULT 2\nOK"
BYTES_MAX = 64 * 1024
"""supervisord's state events are about 100 bytes; more than this is not its protocol."""


class SupervisordEvent(Struct, frozen=True):
    """One event of supervisord."""

    name: str
    """PROCESS_STATE_RUNNING, TICK_5 …"""
    payload: dict[str, str]
    """processname, groupname, from_state, pid, expected, tries, when."""


class EventParser:
    """Parses bytes into events; each event is answered with DONE + READY."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[SupervisordEvent]:
        """Takes bytes as they come. Raises: ValueError on what is not the protocol."""
        self._data += data
        events: list[SupervisordEvent] = []
        while True:
            header, newline, rest = bytes(self._data).partition(b"\n")
            if not newline:
                if len(header) > BYTES_MAX:
                    raise ValueError("no event header within 64 KiB")
                return events
            tokens = parse_pairs(header.decode())
            length = int(tokens["len"])
            if not 0 <= length <= BYTES_MAX:
                raise ValueError(f"event of {length} bytes, limit {BYTES_MAX}")
            if len(rest) < length:
                return events
            events.append(SupervisordEvent(tokens["eventname"], parse_pairs(rest[:length].decode().partition("\n")[0])))
            self._data = bytearray(rest[length:])


def parse_pairs(line: str) -> dict[str, str]:
    """Reads `a:1 b:2`."""
    return dict(token.split(":", 1) for token in line.split() if ":" in token)
