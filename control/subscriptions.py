"""`subscribe` and `unsubscribe`: which events a connection gets. No I/O."""

from __future__ import annotations

from control.messages import Reply, Subscribe, Unsubscribe, error, topics_of
from control.roster import Peer


def subscribed(peer: Peer, command: Subscribe) -> Reply:
    """Take topics on; the answer names all there are now, so that nobody waits for an event he never asked for."""
    try:
        peer.topics |= topics_of(command.topics)
    except ValueError as problem:
        return error(str(problem), "bad_arguments")
    shown = sorted(peer.topics)
    return Reply(status="subscribed", text=f"subscribed to {', '.join(shown)}", data={"topics": shown})


def unsubscribed(peer: Peer, command: Unsubscribe) -> Reply:
    """Drop topics; without any named, all of them."""
    try:
        peer.topics -= topics_of(command.topics) if command.topics else peer.topics
    except ValueError as problem:
        return error(str(problem), "bad_arguments")
    return Reply(status="unsubscribed", text="OK", data={"topics": sorted(peer.topics)})
