"""One WebRTC connection that sends access units as they are: aiortc, with the parts replaced that would encode.

Imported when the first viewer comes: aiortc is optional, and takes 0.3 s and 25 MB.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError
from aiortc.mediastreams import MediaStreamError

from streamer.h264.viewers import RtpVideoViewer

TIME_BASE = Fraction(1, 1_000_000)

SEND_BYTES_MAX = 256 * 1024
"""Bytes that may wait behind the kernel's send buffer, about one key frame; beyond it frames are dropped up to the next
key frame, as asyncio would keep any number of datagrams."""

for _name in ("aioice", "aiortc"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # at INFO they tell every step of every connection


class OfferRefused(ValueError):
    """An offer that aiortc cannot answer."""


class UnitTrack(MediaStreamTrack):
    """The access units of one viewer, as aiortc's sender takes them."""

    kind = "video"

    def __init__(self, viewer: RtpVideoViewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._first_us = -1

    async def recv(self) -> Any:
        """Returns the next unit as a packet: what is no frame, aiortc sends without encoding it."""
        if self.readyState != "live":
            raise MediaStreamError
        data, time_us = await self._viewer.next_unit()
        if self._first_us < 0:
            self._first_us = time_us
        packet = av.Packet(data)
        packet.pts, packet.time_base = time_us - self._first_us, TIME_BASE
        return packet


class WebRtcPeer:
    """The connection to one viewer; `open_peer` closes it."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """`addresses`: those of this machine that the viewer may connect to; none: all but loopback."""
        self.connected, self.ended = asyncio.Event(), asyncio.Event()
        self._addresses = addresses
        # No ICE server: the viewer reaches the address at which it reaches the page.
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connection.on("connectionstatechange", self._note_state)

    def is_congested(self) -> bool:
        """Returns whether the kernel takes no more of what is sent."""
        sockets = (protocol.transport for ice in self._list_ice() for protocol in ice._protocols)
        return any(transport.get_write_buffer_size() > SEND_BYTES_MAX for transport in sockets)

    async def answer(self, offer: str, viewer: RtpVideoViewer) -> str:
        """Sends the viewer's units to whom the offer comes from, once connected.

        Returns: the SDP answer. Raises: OfferRefused.
        """
        connection = self._connection
        transceiver = connection.addTransceiver(UnitTrack(viewer), direction="sendonly")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences([one for one in codecs if one.mimeType in {"video/H264", "video/rtx"}])
        # aiortc 1.16 tells of a PLI by this method alone, to an encoder that we have not.
        transceiver.sender._send_keyframe = viewer.want_key  # type: ignore[method-assign]
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            if self._addresses:
                for ice in self._list_ice():
                    await _gather(ice, self._addresses)
            await connection.setLocalDescription()
        # Its parser raises any of these; RuntimeError is a StopIteration that was raised in a coroutine.
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
            raise OfferRefused(f"the offer cannot be read: {type(error).__name__} {error}"[:200]) from None
        except (InvalidAccessError, InvalidStateError, OperationError) as error:
            raise OfferRefused(f"the offer has no H264 of packetization-mode=1: {error}"[:200]) from None
        return connection.localDescription.sdp

    async def close(self) -> None:
        """Ends the connection and tells the other end."""
        await self._connection.close()

    def _list_ice(self) -> list[Any]:
        """Returns aioice's connections, one unless the viewer does not bundle."""
        transports = {one.sender.transport.transport for one in self._connection.getTransceivers()}
        return [transport.iceGatherer._connection for transport in transports]

    def _note_state(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self.connected.set()
        elif state in {"failed", "closed"}:
            self.ended.set()


async def _gather(ice: Any, addresses: Sequence[str]) -> None:
    """Opens a socket on each address; aioice 0.13 would take every address of the machine, but never loopback."""
    ice._local_candidates_start = True
    ice._local_candidates = await ice.get_component_candidates(1, list(addresses))
    ice._local_candidates_end = True


@asynccontextmanager
async def open_peer(addresses: Sequence[str]) -> AsyncIterator[WebRtcPeer]:
    """Opens a connection for the length of the block."""
    peer = WebRtcPeer(addresses)
    try:
        yield peer
    finally:
        await peer.close()
