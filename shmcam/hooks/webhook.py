"""Sends an event to a webhook: a POST of JSON, with a file as multipart/form-data, signed as Standard Webhooks say.

Source: https://www.standardwebhooks.com (headers webhook-id, webhook-timestamp, webhook-signature), RFC 7578.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from shmcam.hooks.attempt import Attachment, Attempt
from shmcam.network.connection_errors import reason_of
from shmcam.runtime.atomic_files import open_regular

BLOCK_BYTES = 64 * 1024
ANSWER_BYTES_MAX = 64 * 1024
"""Read of an answer at most; its text is not used."""

REFUSALS = frozenset({400, 410, 413, 415, 422})
"""The event itself is at fault, or the address is gone for good; every other error may be mended meanwhile."""

RETRY_AFTER_MAX_S = 3600.0

SEND_BYTES_PER_S_MIN = 32 * 1024
"""The slowest way up: the time for a request is timeout_s, and so much more for the bytes that are sent."""


class Body(Struct, frozen=True):
    """The bytes of a request, which can be read twice: for the signature and for the wire."""

    media_type: str
    head: bytes
    file: Attachment | None = None
    tail: bytes = b""

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return len(self.head) + (self.file.size_bytes if self.file else 0) + len(self.tail)

    def blocks(self) -> Iterator[bytes]:
        """Yields its bytes. Raises: OSError for a file that went or changed its size."""
        yield self.head
        if self.file is not None:
            yield from _read_blocks(self.file)
        if self.tail:
            yield self.tail


def _read_blocks(file: Attachment) -> Iterator[bytes]:
    if isinstance(file.content, bytes):
        yield file.content
        return
    left = file.size_bytes
    with open_regular(file.content) as source:
        while left > 0:
            block = source.read(min(BLOCK_BYTES, left))
            if not block:
                raise OSError(f"{Path(file.name).name} became shorter")
            left -= len(block)
            yield block


def make_body(payload: bytes, file: Attachment | None) -> Body:
    """Returns the JSON alone, or a form of the parts `event` (JSON) and `file`."""
    if file is None:
        return Body("application/json", payload)
    boundary = secrets.token_hex(16)
    name = file.name.replace("\\", "").replace('"', "").encode("ascii", "replace").decode()
    heads = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{part}\r\nContent-Type: {kind}\r\n\r\n'.encode()
        for part, kind in (('event"', "application/json"), (f'file"; filename="{name}"', file.media_type))
    ]
    head = heads[0] + payload + b"\r\n" + heads[1]
    return Body(f"multipart/form-data; boundary={boundary}", head, file, f"\r\n--{boundary}--\r\n".encode())


def sign(secret: str, ident: str, timestamp: int, body: Body) -> str:
    """Returns the header webhook-signature: v1, and the base64 of HMAC-SHA256 over id.timestamp.body.

    `secret`: whsec_ and base64, as the standard writes it, or any other text.
    """
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            key = secret.encode()
    mac = hmac.new(key, f"{ident}.{timestamp}.".encode(), hashlib.sha256)
    for block in body.blocks():
        mac.update(block)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"


def send_webhook(
    url: str,
    *,
    payload: bytes,
    ident: str,
    secret: str = "",
    headers: Mapping[str, str] | None = None,
    file: Attachment | None = None,
    timeout_s: float = 30.0,
) -> Attempt:
    """Sends one request. Redirects are not followed: the key would go to another server."""
    parts = urlsplit(url)
    body, timestamp = make_body(payload, file), int(time.time())
    sent = {
        "User-Agent": "shmcam",
        "webhook-id": ident,
        "webhook-timestamp": str(timestamp),
        **({"Authorization": _basic(parts.username, parts.password)} if parts.username else {}),
        **(headers or {}),
        "Content-Type": body.media_type,
        "Content-Length": str(body.size_bytes),
    }
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    end_s = time.monotonic() + timeout_s + body.size_bytes / SEND_BYTES_PER_S_MIN
    try:
        if secret:
            sent["webhook-signature"] = sign(secret, ident, timestamp, body)
        with _open(parts.scheme, parts.hostname or "", parts.port, timeout_s, end_s) as connection:
            connection.request("POST", target, body.blocks(), sent)
            answer = connection.getresponse()
            with suppress(OSError, http.client.HTTPException):  # its status counts, however its text ends
                answer.read(ANSWER_BYTES_MAX)
            return to_attempt(answer.status, answer.getheader("Retry-After") or "")
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as problem:
        return Attempt("failed", _explain(TimeoutError() if time.monotonic() >= end_s else problem))


@contextmanager
def _open(
    scheme: str, host: str, port: int | None, timeout_s: float, end_s: float
) -> Iterator[http.client.HTTPConnection]:
    """Connects; at `end_s` (monotonic) the socket is shut down, for a server that sends a byte now and then."""
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port or kind.default_port, timeout=timeout_s)
    sock = socket.create_connection((host, connection.port), timeout_s)
    if scheme == "https":
        context = ssl.create_default_context()
        sock = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    timer = threading.Timer(max(0.0, end_s - time.monotonic()), _shut_down, (sock,))
    timer.daemon = True
    timer.start()
    connection.sock = sock
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        yield connection
    finally:
        timer.cancel()
        connection.close()


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not that of SSLSocket, which changes what the reader uses


def _basic(user: str, password: str | None) -> str:
    return "Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()


def to_attempt(status: int, retry_after: str) -> Attempt:
    """Returns what an HTTP status means: 2xx done; the event's own fault is refused, all else may work later."""
    if 200 <= status < 300:
        return Attempt("done", f"HTTP {status}")
    if 300 <= status < 400:
        return Attempt("failed", f"HTTP {status}: it redirects; put the new address into config.toml")
    wait_s = min(float(retry_after), RETRY_AFTER_MAX_S) if retry_after.isdecimal() else 0.0
    return Attempt("refused" if status in REFUSALS else "failed", f"HTTP {status}", wait_s)


def _explain(problem: Exception) -> str:
    """Returns an error in words, without a part of the address; a ValueError may quote headers."""
    return reason_of(problem) if isinstance(problem, OSError) else type(problem).__name__
