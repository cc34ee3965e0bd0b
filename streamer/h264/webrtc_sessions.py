"""The table of WebRTC sessions with its limits, and the check of what a viewer offers. Pure, and without aiortc."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from streamer.pictures.fanout import TooManyViewers


@dataclass(slots=True, eq=False)
class WebRtcSession:
    """One viewer from its offer until its connection ends."""

    id: str
    """Cannot be guessed: whoever names it may end the session."""
    camera: str
    peer_key: str
    deleted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the viewer asks to end it."""
    task: asyncio.Task[None] | None = None
    """Runs until the connection ends; the reference keeps it."""


class WebRtcSessions:
    """The sessions of all cameras."""

    def __init__(self) -> None:
        self.by_id: dict[str, WebRtcSession] = {}

    @contextmanager
    def hold(self, camera: str, peer_key: str, *, most: int, per_peer: int) -> Iterator[WebRtcSession]:
        """Adds a session for the length of the block. Raises: TooManyViewers."""
        if len(self.by_id) >= most:
            raise TooManyViewers(f"{most} WebRTC sessions run already (webrtc.max_sessions)")
        if sum(session.peer_key == peer_key for session in self.by_id.values()) >= per_peer:
            raise TooManyViewers(f"{per_peer} WebRTC sessions from this address run already (webrtc.max_sessions)")
        session = WebRtcSession(secrets.token_urlsafe(16), camera, peer_key)
        self.by_id[session.id] = session
        try:
            yield session
        finally:
            del self.by_id[session.id]


def find_offer_problem(offer: str) -> str:
    """Returns why an SDP offer cannot be answered with one camera's H.264; empty: it can.

    The offer is to be one of draft-ietf-wish-whep: it receives video, and audio if it likes, and sends nothing.
    """
    sections = [section.splitlines() for section in f"\n{offer}".split("\nm=")[1:]]
    kinds = [lines[0].partition(" ")[0] for lines in sections]
    if kinds.count("video") != 1 or kinds.count("audio") > 1 or set(kinds) - {"video", "audio"}:
        return f"the offer must have one m=video, and m=audio at most once; it has: {', '.join(kinds)[:80] or 'none'}"
    if not all({"a=recvonly", "a=inactive"} & set(lines) for lines in sections):
        return "the offer must only receive (a=recvonly)"
    video = sections[kinds.index("video")]
    if not any(line.startswith("a=rtpmap:") and " h264/90000" in line.lower() for line in video):
        return "the offer must take H264/90000: nothing is encoded anew"
    return ""


def remove_candidates(offer: str) -> str:
    """Returns the offer without the viewer's addresses.

    It connects to us, so they are not needed, and nobody can make us send to addresses of others, or ask the network
    for the `.local` names that browsers give.
    """
    unwanted = ("a=candidate:", "a=end-of-candidates")
    return "".join(line for line in offer.splitlines(keepends=True) if not line.startswith(unwanted))
