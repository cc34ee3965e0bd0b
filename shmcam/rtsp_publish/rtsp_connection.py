"""A connection to an RTSP server that takes a stream (RECORD), by TCP or TLS; no wait goes past its end or a stop."""

from __future__ import annotations

import errno
import os
import secrets
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from shmcam.network.http_auth import ClientLogin
from shmcam.rtsp_publish.address import to_plain
from shmcam.rtsp_publish.rtp_packets import RtpStream
from shmcam.rtsp_publish.rtsp_messages import (
    OK,
    UNAUTHORIZED,
    RtspMessage,
    channels_of,
    describe,
    make_request,
    take_message,
)
from shmcam.runtime.guarded_thread import ThreadForEach
from shmcam.runtime.stop import Stop
from shmcam.video.annexb import ParameterSets

CONNECT_S = 10.0
"""The whole way from the server's name to its consent."""
SILENT_S = 10.0
"""A server that has not taken one access unit after so long is given up."""
SEND_BUFFER_BYTES = 256 * 1024
"""What the kernel keeps for the server. Its own choice grows to 4 MB: half a minute at 1 Mbit/s, late and unnoticed."""
REPORT_S = 5.0
"""Between two sender reports (RFC 3550 6.2)."""
RECEIVE_BYTES, RECEIVES_MAX = 16 * 1024, 16
"""Read at a time, and times for each access unit: a server that sends without end is not read without end."""
LOOK_S = 0.1
NO_ANSWER = "no answer in time"
DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322}

T = TypeVar("T")


class Stopped(OSError):
    """The process stops, and waits for nothing any more."""


class RtspConnection:
    """The connection of one stream."""

    def __init__(self, sock: socket.socket, url: str, stop: Stop) -> None:
        """`sock` is connected and never blocks."""
        parts = urlsplit(url)
        self._sock, self._url, self._stop = sock, to_plain(url), stop
        self._person = unquote(parts.username or ""), unquote(parts.password or "")
        self._login = ClientLogin()
        self._received = bytearray()
        self._number = 0
        self._session = ""
        self._stream = RtpStream(
            source=secrets.randbits(32), first_sequence=secrets.randbits(16), first_time=secrets.randbits(32)
        )
        self._reported_s = 0.0

    def begin_tls(self, host: str, end_s: float) -> None:
        """Shakes hands, without a check of the certificate. Raises: OSError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._sock = sock = context.wrap_socket(self._sock, server_hostname=host, do_handshake_on_connect=False)
        self._go_on(sock.do_handshake, end_s)

    def begin(self, name: str, sets: ParameterSets, end_s: float) -> None:
        """Asks the server to take the stream called `name`. Raises: OSError."""
        self._ask("OPTIONS", self._url, {}, end_s)
        self._ask("ANNOUNCE", self._url, {"Content-Type": "application/sdp"}, end_s, describe(name, sets))
        transport = {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"}
        reply = self._ask("SETUP", f"{self._url}/streamid=0", transport, end_s)
        self._ask("RECORD", self._url, {"Range": "npt=0.000-"}, end_s)
        self._stream.channels = channels_of(reply.value("transport"))

    def send_unit(self, unit: bytes, pts_us: int) -> None:
        """Sends one access unit; `pts_us` counts from the first one. Raises: OSError."""
        self.keep_alive()
        self._send(self._stream.frame_unit(unit, pts_us), time.monotonic() + SILENT_S)

    def keep_alive(self) -> None:
        """Reads what the server sends, and sends a report if it is time. Raises: OSError."""
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            for _ in range(RECEIVES_MAX):
                self._receive()
                while take_message(self._received):
                    pass  # what it tells of what it received, and requests, change nothing
        now_s = time.monotonic()
        if now_s - self._reported_s >= REPORT_S:
            self._reported_s = now_s
            self._send(self._stream.frame_report(time.time_ns()), now_s + SILENT_S)

    def end(self) -> None:
        """Says that the stream ends, if there is room for that at once."""
        with suppress(OSError):
            self._sock.send(self._make("TEARDOWN", self._url, {}, b""))

    def close(self) -> None:
        """Closes the connection."""
        self._sock.close()

    # ---- inside

    def _make(self, method: str, url: str, fields: Mapping[str, str], body: bytes) -> bytes:
        self._number += 1
        login = self._login.answer(*self._person, url, method=method, body=body)
        every = {**fields, "Session": self._session, "Authorization": login}
        return make_request(method, url, self._number, every, body)

    def _ask(self, method: str, url: str, fields: Mapping[str, str], end_s: float, body: bytes = b"") -> RtspMessage:
        """Returns the server's consent. Raises: OSError."""
        for is_last in (False, True):  # a wrong password gets a new challenge each time
            self._send(self._make(method, url, fields, body), end_s)
            reply = self._read_reply(end_s)
            self._session = self._session or reply.value("session").partition(";")[0].strip()
            if reply.status == OK:
                return reply
            if is_last or reply.status != UNAUTHORIZED or not self._person[0]:
                break
            self._login.take_challenge(reply.values("www-authenticate"))
        raise OSError(reply.reason)

    def _read_reply(self, end_s: float) -> RtspMessage:
        while True:
            message = take_message(self._received)
            if message is None:
                self._go_on(self._receive, end_s)
            elif message.is_reply and message.value("cseq") == str(self._number):
                return message

    def _receive(self) -> None:
        data = self._sock.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server ended the connection")
        self._received += data

    def _send(self, data: bytes, end_s: float) -> None:
        left = memoryview(data)
        while left:
            left = left[self._go_on(lambda: self._sock.send(left), end_s, select.POLLOUT) :]  # noqa: B023 - called at once

    def _go_on(self, step: Callable[[], T], end_s: float, events: int = select.POLLIN) -> T:
        """Tries a step until the socket lets it be done; `events`: what plain TCP waits for. Raises: OSError."""
        while True:
            _check(end_s, self._stop)
            try:
                return step()
            except ssl.SSLWantReadError:
                _wait(self._sock, select.POLLIN, end_s, self._stop)
            except ssl.SSLWantWriteError:
                _wait(self._sock, select.POLLOUT, end_s, self._stop)
            except BlockingIOError:
                _wait(self._sock, events, end_s, self._stop)


@contextmanager
def open_stream(url: str, name: str, sets: ParameterSets, stop: Stop) -> Iterator[RtspConnection]:
    """Publishes a stream called `name` until the block ends. Raises: OSError, in words that have no secret."""
    parts, end_s = urlsplit(url), time.monotonic() + CONNECT_S
    try:
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
        host.encode("idna")
    except ValueError:  # its words may quote the password
        raise OSError("its host or port cannot be") from None
    connection = RtspConnection(_connect(host, port, end_s, stop), url, stop)
    try:
        if parts.scheme == "rtsps":
            connection.begin_tls(host, end_s)
        connection.begin(name, sets, end_s)
        yield connection
        connection.end()
    except TimeoutError as error:  # the kernel's own may come first (TCP_USER_TIMEOUT)
        if error.errno == errno.ETIMEDOUT:
            raise TimeoutError(NO_ANSWER) from None
        raise
    finally:
        connection.close()


def _connect(host: str, port: int, end_s: float, stop: Stop) -> socket.socket:
    """Returns a connection to the first address that answers; each has an equal part of the time. Raises: OSError."""
    addresses = _find_addresses(host, port, end_s, stop)
    for left, (family, *_, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        now_s = time.monotonic()
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(SILENT_S * 1000))
            _finish_connect(sock, address, now_s + (end_s - now_s) / left, stop)
        except OSError as error:
            sock.close()
            if left == 1 or isinstance(error, Stopped):
                raise
        else:
            return sock
    raise OSError("its name has no address")


def _finish_connect(sock: socket.socket, address: Any, end_s: float, stop: Stop) -> None:
    try:
        sock.connect(address)
    except BlockingIOError:
        _wait(sock, select.POLLOUT, end_s, stop)
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number)) from None


def _find_addresses(host: str, port: int, end_s: float, stop: Stop) -> Sequence[tuple[Any, ...]]:
    """Returns what getaddrinfo says. It has no time limit, so a thread of its own asks, and may be left behind."""
    answer = ThreadForEach().submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    while not wait([answer], LOOK_S).done:
        _check(end_s, stop)
    addresses: Sequence[tuple[Any, ...]] = answer.result()
    return addresses


def _wait(sock: socket.socket, events: int, end_s: float, stop: Stop) -> None:
    """Waits for a socket, or the end."""
    poll = select.poll()
    poll.register(sock, events)
    poll.register(stop, select.POLLIN)
    poll.poll(max(0.0, end_s - time.monotonic()) * 1000)
    _check(end_s, stop)


def _check(end_s: float, stop: Stop) -> None:
    if stop.requested:
        raise Stopped("the process stops")
    if time.monotonic() >= end_s:
        raise TimeoutError(NO_ANSWER)
