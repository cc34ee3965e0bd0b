"""What a process receives from the hub, and how it answers."""

from __future__ import annotations

from dataclasses import dataclass

from control.line import Line
from control.messages import Chunk, Message, Reply

CHUNK_BACKLOG_BYTES = 1024 * 1024
"""Bytes of chunks that may wait to be sent; then reply() refuses more, and the sender tries again."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command to answer, or an event that was subscribed to."""

    message: Message
    _ident: object
    _line: Line

    def reply(self, answer: Reply | Chunk) -> bool:
        """Answer, now or later, from any thread; chunks first, the Reply last.

        Returns False if it could not be taken: the backlog of chunks is full (try again), or the hub is gone.
        """
        if self._ident is None:
            return True
        if isinstance(answer, Chunk) and self._line.backlog_bytes > CHUNK_BACKLOG_BYTES:
            return False
        return self._line.put(answer, self._ident)
