"""One camera's access units on their way to the RTSP server, by FFmpeg's muxer; connects again when it breaks."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

import av
import psutil

from shm_ring import LiveRing
from shm_ring.records.packets import Unit, follow
from shmcam.rtsp_publish.address import to_shown
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff
from shmcam.video.annexb import ParameterSets, find_parameter_sets

log = logging.getLogger(__name__)

TIME_BASE = Fraction(1, 1_000_000)
IDLE_S = 0.5
SILENT_S = 10.0
"""A server that takes nothing for so long is given up: FFmpeg waits without end, and PyAV can set no timeout."""
CONNECT_S = 5.0
"""Seconds that FFmpeg waits for an answer while it connects, and for room in the socket later."""
FRAMELESS_S = 5.0
"""A recorder that is asked for packets sends a key frame within this time."""
SETTLED_S = 10.0
"""A connection that has lasted so long was a good one; the next trouble is a new one."""


@dataclass(frozen=True, slots=True)
class PublisherStatus:
    """How one camera's publishing goes; replaced, never changed, as two threads read it."""

    state: str = "waiting"
    """waiting (for frames), published or retrying."""
    reason: str = ""
    """For retrying: what the server or the network said."""
    units: int = 0
    """Access units sent since start."""
    sent_bytes: int = 0
    connections: int = 0
    """Connections since start."""


class Publisher:
    """The work of one thread."""

    def __init__(self, camera: str, url: str, ring: LiveRing, stop: Stop) -> None:
        self.camera = camera
        self.status = PublisherStatus()
        self.needs_key = True
        """The recorder is to be asked for a key frame; the loop does, and takes it back."""
        self._url, self._ring, self._stop = url, ring, stop
        self._backoff = Backoff()
        self._waiting_since_s = 0.0
        """When the call of FFmpeg that is in progress began; 0: none is."""
        self._is_silent = False
        self._is_ended = False

    def note_end(self) -> None:
        """Notes that the connections of this process were ended: over TLS, FFmpeg goes on writing into nothing."""
        self._is_ended = True

    def notice_silence(self, now_s: float) -> bool:
        """Returns whether the server takes nothing any more; `now_s` is monotonic."""
        since_s = self._waiting_since_s
        is_silent = since_s > 0 and now_s - since_s > SILENT_S
        self._is_silent |= is_silent  # until `run` has told it
        return is_silent

    def run(self) -> None:
        """Publishes until stop is requested."""
        while not self._stop.requested:
            try:
                self._publish()
            except (av.FFmpegError, OSError) as error:
                delay_s = self._backoff.next_delay_s()
                reason = "no answer" if self._is_silent else error.strerror or str(error)
                self._is_silent = False
                self._note(state="retrying", reason=f"{to_shown(self._url)}: {reason}")
                log.warning("cannot publish camera=%s to=%s reason=%s", self.camera, to_shown(self._url), reason)
                self._stop.wait(delay_s)
                self._note(state="waiting")
                self.needs_key = True

    # ---- inside

    def _publish(self) -> None:
        """Publishes one stream: until stop is requested, or another encoder or size begins. Raises: OSError."""
        began_s = time.monotonic()
        for unit in follow(self._ring, idle_s=IDLE_S):
            if self._stop.requested:
                return
            if self.status.reason and time.monotonic() - began_s > FRAMELESS_S:
                self._note(reason="")  # no frames come: how the server is by now is not known
            sets = find_parameter_sets(unit.data) if unit and unit.key else None
            if unit and sets:
                self._publish_stream(unit, sets)
                return

    def _publish_stream(self, first: Unit, sets: ParameterSets) -> None:
        """Connects, and sends what follows the key frame that the connection was opened for."""
        self._is_ended = False
        with self._open(first) as (container, stream):
            began_s, is_begun = time.monotonic(), False
            for unit in follow(self._ring, idle_s=IDLE_S):
                if self._stop.requested:
                    return
                if unit is None:
                    continue
                if unit.key and find_parameter_sets(unit.data) != sets:
                    log.info("another stream begins camera=%s", self.camera)
                    self.needs_key = True
                    return
                packet: Any = av.Packet(unit.data)
                packet.pts = packet.dts = unit.pts_us - first.pts_us
                packet.time_base, packet.stream = TIME_BASE, stream
                with self._wait():
                    container.mux(packet)
                if self._is_ended:
                    raise OSError("ended, as another camera's connection took nothing any more")
                if not is_begun:
                    is_begun = True
                    log.info("published camera=%s to=%s", self.camera, to_shown(self._url))
                    self._note(state="published", reason="", connections=self.status.connections + 1)
                if time.monotonic() - began_s > SETTLED_S:
                    self._backoff.reset()
                self._note(units=self.status.units + 1, sent_bytes=self.status.sent_bytes + len(unit.data))

    @contextmanager
    def _open(self, unit: Unit) -> Iterator[tuple[av.container.OutputContainer, Any]]:
        """Connects, and says at the end of the block that the stream ends."""
        check_server(self._url)
        container = av.open(
            self._url, "w", format="rtsp", options={"rtsp_transport": "tcp", "timeout": f"{CONNECT_S * 1e6:.0f}"}
        )
        try:
            stream = container.add_mux_stream("h264", width=unit.width, height=unit.height, time_base=TIME_BASE)
            began_s = time.monotonic()
            try:
                with self._wait():
                    container.start_encoding()
            except av.FFmpegError:
                if time.monotonic() - began_s < CONNECT_S:
                    raise
                raise OSError("no answer") from None  # FFmpeg says "Invalid data found when processing input"
            self.needs_key = True  # the one that opened the connection is old by now
            yield container, stream
        finally:
            with suppress(av.FFmpegError, OSError), self._wait():
                container.close()

    @contextmanager
    def _wait(self) -> Iterator[None]:
        """Notes how long a call of FFmpeg takes."""
        self._waiting_since_s = time.monotonic()
        try:
            yield
        finally:
            self._waiting_since_s = 0.0

    def _note(self, **fields: Any) -> None:
        self.status = replace(self.status, **fields)


def check_server(url: str) -> None:
    """Asks for the methods that the server knows (OPTIONS, RFC 2326 10.1). Raises: OSError if nothing of RTSP answers.

    PyAV holds the GIL while FFmpeg connects, so a server that accepts and stays silent would hang the whole process for
    CONNECT_S, each time that it is tried.
    """
    parts = urlsplit(url)
    try:
        place = parts.hostname or "", parts.port or (322 if parts.scheme == "rtsps" else 554)
        connection = socket.create_connection(place, SILENT_S)
    except ValueError:  # its words may quote the password
        raise OSError("its host or port cannot be") from None
    with connection as sock:
        if parts.scheme == "rtsps":
            return  # TLS begins with our words, so silence shows only later
        sock.sendall(f"OPTIONS {to_shown(url)} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
        if not sock.recv(64).startswith(b"RTSP/"):
            raise OSError("what answers is no RTSP server")


def end_connections() -> None:
    """Ends every TCP connection of this process, so that FFmpeg's calls return: it has no other ones."""
    for connection in psutil.Process().net_connections("tcp"):
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fd)) as sock:
            sock.shutdown(socket.SHUT_RDWR)
