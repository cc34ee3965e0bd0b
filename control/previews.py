"""preview_frame messages: who wants them, what the streamer has to make, who gets each picture. No I/O.

The streamer makes one stream of small pictures per camera, at the highest rate and width anyone asked for; the hub
thins it for those who asked for less.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from control.actions import Action, Send
from control.messages import Preview, PreviewFrame, Reply, error
from control.roster import Peer, Roster

EARLY = 0.75
"""A picture goes out if at least this part of a watcher's frame period is over: the streamer's pace jitters."""


def toggle_preview(roster: Roster, peer: Peer, command: Preview, ident: Any) -> list[Action]:
    """Switch previews of one camera for one connection."""
    camera = command.camera or roster.cameras[0]
    if camera not in roster.cameras:
        said = error(f"no camera {camera!r}; cameras: {', '.join(roster.cameras)}", "unknown_camera")
        return [Send((peer.number,), said, ident)]
    if command.enabled:
        peer.previews[camera] = command
    else:
        peer.previews.pop(camera, None)
    status = "preview_enabled" if command.enabled else "preview_disabled"
    reply = Reply(status=status, text=f"OK: {status} {camera}", data={"camera_id": camera, "enabled": command.enabled})
    return [Send((peer.number,), reply, ident), *request_previews(roster, [camera])]


def request_previews(roster: Roster, cameras: Iterable[str] = ()) -> list[Action]:
    """Tell the streamer what is wanted of these cameras (none given: of all that anyone watches)."""
    streamers = tuple(peer.number for peer in roster.owners("preview", None))
    wanted = set(cameras) or {camera for peer in roster.peers.values() for camera in peer.previews}
    asked = []
    for camera in sorted(wanted) if streamers else []:
        watching = [peer.previews[camera] for peer in roster.peers.values() if camera in peer.previews]
        fps = max((one.fps for one in watching), default=1.0)
        width = max((one.width for one in watching), default=320)
        asked.append(Send(streamers, Preview(camera=camera, enabled=bool(watching), fps=fps, width=width)))
    return list(asked)


def forward_preview(roster: Roster, frame: PreviewFrame, now_s: float) -> list[Action]:
    """Give one picture to each watcher whose turn it is."""
    to = []
    for peer in roster.peers.values():
        wanted = peer.previews.get(frame.camera)
        last_s = peer.preview_sent_s.get(frame.camera, -1e9)
        if "preview_frame" in peer.topics or (wanted and now_s - last_s >= EARLY / wanted.fps):
            peer.preview_sent_s[frame.camera] = now_s
            to.append(peer.number)
    return [Send(tuple(to), frame)] if to else []
