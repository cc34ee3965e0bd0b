"""The table of pending commands: requester, owners, deadline; merges the answers of several cameras. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shmcam.control.command_table import CommandRow
from shmcam.control.messages import Reply, error
from shmcam.hub.registry import Peer

PENDING_MAX = 1024
"""Pending commands at most, over all connections; each costs under 1 KiB."""


@dataclass
class PendingCommand:
    """One command that waits for its answers."""

    number: int
    """The id under which its owners know it."""
    requester: int
    """The peer that gets the answer."""
    ident: Any
    """The requester's own id for it; None: the requester reads answers in order."""
    row: CommandRow
    deadline_s: float
    owners: dict[int, Peer] = field(default_factory=dict)
    """The peers whose Reply is outstanding, by number."""
    is_held: bool = False
    """The owners were asked to send no chunks until the requester has read those before."""
    replies: list[tuple[str, Reply]] = field(default_factory=list)
    """Camera (or "") and answer, as they came."""

    def merged_reply(self) -> Reply:
        """Returns one Reply of all."""
        return merge_replies(self.replies)


def merge_replies(replies: list[tuple[str, Reply]]) -> Reply:
    """Returns a single answer as it is; of several, each text after its camera's name, and data under "cameras"."""
    if len(replies) == 1:
        return replies[0][1]
    replies = sorted(replies, key=lambda pair: pair[0])
    failed = [reply for _, reply in replies if not reply.ok]
    return Reply(
        ok=not failed,
        status=(failed or [replies[0][1]])[0].status,
        text="\n".join(_prefix_camera(camera, reply.text) for camera, reply in replies),
        data={"cameras": {camera: {"ok": reply.ok, "status": reply.status, **reply.data} for camera, reply in replies}},
    )


def _prefix_camera(camera: str, text: str) -> str:
    return f"ERROR: {camera}: {text.removeprefix('ERROR: ')}" if text.startswith("ERROR: ") else f"{camera}: {text}"


class PendingCommands:
    """All pending commands, by number."""

    def __init__(self) -> None:
        self._commands: dict[int, PendingCommand] = {}
        self._next_number = 1

    def begin(
        self, requester: int, ident: Any, row: CommandRow, now_s: float, owners: list[Peer]
    ) -> PendingCommand | None:
        """Adds a command for `owners` to answer (none: the hub itself). Returns None if too many are pending."""
        if len(self._commands) >= PENDING_MAX:
            return None
        by_number = {peer.number: peer for peer in owners}
        pending = PendingCommand(self._next_number, requester, ident, row, now_s + row.timeout_s, by_number)
        self._commands[pending.number] = pending
        self._next_number += 1
        return pending

    def find(self, number: Any, owner: int | None = None) -> PendingCommand | None:
        """Returns the command of a number, if `owner` (None: the hub) is one of its owners."""
        pending = self._commands.get(number) if isinstance(number, int) else None
        return pending if pending and (owner is None or owner in pending.owners) else None

    def set_held(self, requester: int, *, is_held: bool) -> list[PendingCommand]:
        """Notes whether chunks for a requester have to wait; returns the commands for which that is new."""
        changed = [p for p in self._commands.values() if p.requester == requester and p.is_held != is_held]
        for pending in changed:
            pending.is_held = is_held
        return changed

    def add_reply(self, number: Any, owner: int | None, reply: Reply) -> PendingCommand | None:
        """Adds an owner's answer. Returns and removes the command if that was the last one."""
        pending = self.find(number, owner)
        if pending is None:
            return None
        peer = pending.owners.pop(owner, None) if owner is not None else None
        pending.replies.append(((peer.hello.camera if peer and peer.hello else ""), reply))
        if pending.owners:
            return None
        return self._commands.pop(pending.number)

    def fail_owner(self, owner: int, why: str) -> list[PendingCommand]:
        """Answers with an error for a peer that went away; returns the commands that are complete now."""
        return self._fail([(p, owner) for p in self._commands.values() if owner in p.owners], why)

    def drop_requester(self, requester: int) -> None:
        """Removes the commands of a closed connection."""
        for number in [p.number for p in self._commands.values() if p.requester == requester]:
            del self._commands[number]

    def expire(self, now_s: float) -> list[PendingCommand]:
        """Answers with an error for owners past the deadline; returns the commands that are complete now."""
        overdue = [p for p in self._commands.values() if p.deadline_s <= now_s]
        return self._fail([(p, owner) for p in overdue for owner in list(p.owners)], "")

    def _fail(self, outstanding: list[tuple[PendingCommand, int]], why: str) -> list[PendingCommand]:
        complete = []
        for pending, owner in outstanding:
            program, row = pending.owners[owner].program, pending.row
            reason = why or f"did not answer {row.words[0]} within {row.timeout_s:.0f} s; see: shmcam logs {program}"
            if done := self.add_reply(pending.number, owner, error(f"{program} {reason}", "no_answer")):
                complete.append(done)
        return complete

    def count_of(self, requester: int) -> int:
        """Returns the number of commands that a connection waits for."""
        return sum(pending.requester == requester for pending in self._commands.values())
