"""Commands under way: who asked, who has to answer, until when; and several cameras' answers made one. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shmcam.control.command_table import CommandRow
from shmcam.control.messages import Reply, error
from shmcam.hub.registry import Peer

UNDER_WAY_MAX = 1024
"""Commands that may wait for answers at once over all connections; each costs under 1 KiB."""


@dataclass
class PendingCommand:
    """One command on its way."""

    ticket: int
    """Its id towards those who answer."""
    asker: int
    """Peer that gets the answer."""
    ident: Any
    """The asker's own id for it; None: the asker reads answers in order."""
    row: CommandRow
    deadline_s: float
    waiting: dict[int, Peer] = field(default_factory=dict)
    """Peers whose Reply is outstanding."""
    replies: list[tuple[str, Reply]] = field(default_factory=list)
    """Camera (or "") and answer, as they came."""

    def answer(self) -> Reply:
        """Make one Reply of all."""
        return merged(self.replies)


def merged(replies: list[tuple[str, Reply]]) -> Reply:
    """One answer as it is; several: each text behind its camera's name, data under "cameras"."""
    if len(replies) == 1:
        return replies[0][1]
    replies = sorted(replies, key=lambda named: named[0])
    failed = [reply for _, reply in replies if not reply.ok]
    return Reply(
        ok=not failed,
        status=(failed or [replies[0][1]])[0].status,
        text="\n".join(_named(camera, reply.text) for camera, reply in replies),
        data={"cameras": {camera: {"ok": reply.ok, "status": reply.status, **reply.data} for camera, reply in replies}},
    )


def _named(camera: str, text: str) -> str:
    return f"ERROR: {camera}: {text.removeprefix('ERROR: ')}" if text.startswith("ERROR: ") else f"{camera}: {text}"


class PendingCommands:
    """All of them, by ticket."""

    def __init__(self) -> None:
        self._by_ticket: dict[int, PendingCommand] = {}
        self._next = 1

    def begin(self, asker: int, ident: Any, row: CommandRow, now_s: float, owners: list[Peer]) -> PendingCommand | None:
        """Note a command that `owners` will answer (none: the hub itself). None: too many are under way."""
        if len(self._by_ticket) >= UNDER_WAY_MAX:
            return None
        waiting = {peer.number: peer for peer in owners}
        errand = PendingCommand(self._next, asker, ident, row, now_s + row.timeout_s, waiting)
        self._by_ticket[errand.ticket] = errand
        self._next += 1
        return errand

    def find(self, ticket: Any, owner: int | None = None) -> PendingCommand | None:
        """Return the errand of a ticket, if `owner` is one who was asked."""
        errand = self._by_ticket.get(ticket) if isinstance(ticket, int) else None
        return errand if errand and (owner is None or owner in errand.waiting) else None

    def take(self, ticket: Any, owner: int | None, reply: Reply) -> PendingCommand | None:
        """Note an answer. Returns the errand once it was the last one, and forgets it."""
        errand = self.find(ticket, owner)
        if errand is None:
            return None
        peer = errand.waiting.pop(owner, None) if owner is not None else None
        errand.replies.append(((peer.hello.camera if peer and peer.hello else ""), reply))
        if errand.waiting:
            return None
        return self._by_ticket.pop(errand.ticket)

    def lost(self, owner: int, why: str) -> list[PendingCommand]:
        """Answer for a peer that went away; return the errands that are complete now."""
        return self._give_up([(e, owner) for e in self._by_ticket.values() if owner in e.waiting], why)

    def forget(self, asker: int) -> None:
        """Drop what a closed connection asked for."""
        for ticket in [e.ticket for e in self._by_ticket.values() if e.asker == asker]:
            del self._by_ticket[ticket]

    def overdue(self, now_s: float) -> list[PendingCommand]:
        """Answer for owners that let the time run out; return the errands that are complete now."""
        late = [e for e in self._by_ticket.values() if e.deadline_s <= now_s]
        slow = [(e, owner) for e in late for owner in list(e.waiting)]
        return self._give_up(slow, "")

    def _give_up(self, waiting: list[tuple[PendingCommand, int]], why: str) -> list[PendingCommand]:
        complete = []
        for errand, owner in waiting:
            who = errand.waiting[owner].program
            said = (
                why
                or f"did not answer {errand.row.words[0]} within {errand.row.timeout_s:.0f} s; see: shmcam logs {who}"
            )
            if done := self.take(errand.ticket, owner, error(f"{who} {said}", "no_answer")):
                complete.append(done)
        return complete

    def of(self, asker: int) -> int:
        """Return how many answers a connection is waiting for."""
        return sum(errand.asker == asker for errand in self._by_ticket.values())
