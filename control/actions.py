"""What the hub decides is to be done; `control.server` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control.messages import Command, Message


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to some peers."""

    peers: tuple[int, ...]
    message: Message
    id: Any = None


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection once everything sent to it is out."""

    peer: int
    why: str


@dataclass(frozen=True, slots=True)
class Do:
    """Work of the desk; its Reply goes to `Hub.answered` with this ticket."""

    ticket: int
    command: Command


Action = Send | Close | Do
