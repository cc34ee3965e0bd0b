"""WebRTC for any WHEP player (draft-ietf-wish-whep): POST an offer, get the answer; DELETE ends the session.

The recorder's packets are sent as they are. What the network loses is sent again (NACK, RTX); where that is not
enough, the viewer asks for a key frame (PLI), and the recorder makes one.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from aiohttp import web

from shmcam.config.optional_program import Need
from shmcam.network.peer_address import is_loopback, peer_key_of, plain_address
from streamer.h264.routes import join_live_video, wait_for_first
from streamer.h264.viewers import RtpVideoViewer
from streamer.h264.webrtc_sessions import WebRtcSession, find_offer_problem, remove_candidates
from streamer.http.context import CONTEXT, Context, camera_of, client_of
from streamer.http.request_body import read_text
from streamer.pictures.fanout import TooManyViewers
from streamer.settings import WebRtcSettings

if TYPE_CHECKING:
    from streamer.h264.webrtc_peer import WebRtcPeer

AIORTC = Need.of_extra("aiortc", "webrtc")
SDP = "application/sdp"
CONNECT_S = 15.0
"""A session that is not connected by then ends: no packet of the viewer came through."""
RETRY_AFTER = {"Retry-After": "5"}


def find_webrtc_problem(settings: WebRtcSettings) -> str:
    """Returns why there is no WebRTC; empty: there is."""
    if not settings.enable:
        return "webrtc.enable is false"
    return "" if AIORTC.is_met else f"WebRTC {AIORTC}"


async def begin_session(request: web.Request) -> web.StreamResponse:
    """Answers an offer; the session then runs on its own, until the connection ends or is deleted."""
    context, camera = request.app[CONTEXT], camera_of(request.app[CONTEXT], request)
    settings = context.settings.table(WebRtcSettings)
    if problem := find_webrtc_problem(settings):
        raise web.HTTPNotImplemented(text=problem)
    offer = await read_text(request)
    if problem := find_offer_problem(offer):
        raise web.HTTPBadRequest(text=problem)
    webrtc = await asyncio.to_thread(importlib.import_module, "streamer.h264.webrtc_peer")
    client, most = client_of(request).address, settings.max_sessions
    per_peer = most if is_loopback(client) else max(1, most // 2)

    def request_key() -> None:
        if camera.live_video.request_key(time.monotonic()):
            context.video_joined.set()

    async with AsyncExitStack() as stack:
        try:
            session = stack.enter_context(
                context.webrtc_sessions.hold(camera.name, peer_key_of(client), most=most, per_peer=per_peer)
            )
        except TooManyViewers as error:
            raise web.HTTPServiceUnavailable(text=str(error), headers=RETRY_AFTER) from None
        peer = await stack.enter_async_context(webrtc.open_peer(list_addresses(request)))
        viewer = RtpVideoViewer(request_key, peer.is_congested)
        stack.enter_context(join_live_video(context, camera, viewer))
        stack.enter_context(context.viewers.track("h264", camera.name, client, "webrtc", viewer.counts))
        try:
            answer = await peer.answer(remove_candidates(offer), viewer)
        except webrtc.OfferRefused as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        session.task = asyncio.create_task(_hold(stack.pop_all(), context, session, peer))
    # Relative to the request, as a proxy may serve us below a path of its own.
    where = {"Location": f"whep/{session.id}", "ETag": f'"{session.id}"', "Cache-Control": "no-store"}
    return web.Response(status=201, text=answer, content_type=SDP, headers=where)


async def end_session(request: web.Request) -> web.StreamResponse:
    """Ends a session. Raises: HTTPNotFound."""
    context, name = request.app[CONTEXT], request.match_info["id"]
    session = context.webrtc_sessions.by_id.get(name)
    if session is None or request.match_info.get("camera", session.camera) != session.camera:
        raise web.HTTPNotFound(text="no such WebRTC session; it has ended")
    session.deleted.set()
    if session.task is not None:
        await asyncio.wait([session.task], timeout=CONNECT_S)
    return web.Response()


def list_addresses(request: web.Request) -> list[str]:
    """Returns the addresses of this machine that the viewer may send to; none: all but loopback.

    It is the one that it reached for the page, so WebRTC is open to nobody whom HTTP is not open to. Only a viewer whom
    a trusted proxy on this machine brings from elsewhere cannot reach that one.
    """
    transport = request.transport
    if transport is None:
        raise web.HTTPBadRequest(text="the viewer has left")
    local = str(plain_address(transport.get_extra_info("sockname")[0]))
    return [] if is_loopback(local) and not is_loopback(client_of(request).address) else [local]


async def _hold(stack: AsyncExitStack, context: Context, session: WebRtcSession, peer: WebRtcPeer) -> None:
    """Keeps what a session has taken until it ends."""
    ends = (peer.ended, session.deleted, context.closing)
    async with stack:
        try:
            async with asyncio.timeout(CONNECT_S):
                await wait_for_first(peer.connected, *ends)
        except TimeoutError:
            return
        await wait_for_first(*ends)
