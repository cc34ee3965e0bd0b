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
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from shmcam.hooks.attempt import Attachment, Attempt

BLOCK_BYTES = 64 * 1024
ANSWER_BYTES_MAX = 64 * 1024
"""Read of an answer at most; its text is not used."""

REFUSALS = frozenset({400, 410, 413, 415, 422})
"""The event itself is at fault, or the address is gone for good; every other error may be mended meanwhile."""

RETRY_AFTER_MAX_S = 3600.0


@dataclass(frozen=True)
class Body:
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
    with file.content.open("rb") as source:
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
    try:
        if secret:
            sent["webhook-signature"] = sign(secret, ident, timestamp, body)
        with closing(_open(parts.scheme, parts.hostname or "", parts.port, timeout_s)) as connection:
            connection.request("POST", target, body.blocks(), sent)
            answer = connection.getresponse()
            answer.read(ANSWER_BYTES_MAX)
            return to_attempt(answer.status, answer.getheader("Retry-After") or "")
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as problem:
        return Attempt("failed", _explain(problem, parts.hostname or ""))


def _open(scheme: str, host: str, port: int | None, timeout_s: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=timeout_s)


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


def _explain(problem: Exception, host: str) -> str:
    """Returns an error in words; http.client quotes neither address nor headers, but a ValueError may."""
    if isinstance(problem, TimeoutError):
        return f"{host} does not answer in time"
    if isinstance(problem, OSError):
        return f"{host}: {problem.strerror or type(problem).__name__}"
    return f"{host}: {type(problem).__name__}"
