"""Asks a camera over HTTP: one connection that is kept, name and password, redirects, limits.

By the standard library's http.client, in the reader's thread: aiohttp would add 17 MB to every capture process that
reads a network camera. Certificates are not verified, as cameras sign their own, and TLS 1.0 and short keys are taken,
as old cameras have no others: what nobody proved to be the camera is not safer for a newer cipher.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urljoin

from capture.sources.base import CameraError
from capture.sources.stream_address import HTTP, NetworkAddress, parse_url
from shmcam.network.connection_errors import reason_of
from shmcam.network.http_auth import ClientLogin

ANSWER_S = 8.0
"""Longest wait for a connection, and for an answer on it."""
SILENCE_S = 600.0
"""Longest silence inside an answer: the most that camera.lost_after_s can be, which ends the wait long before."""
REDIRECTS = 5
"""As many as curl's --location follows in a well-behaved net."""

OK, NOT_MODIFIED, UNAUTHORIZED = 200, 304, 401
MOVED = (301, 302, 303, 307, 308)

Answer = http.client.HTTPResponse


class HttpClient:
    """Asks one camera; `abort` may be called from another thread, everything else from one only."""

    def __init__(self, address: NetworkAddress) -> None:
        self._address = address
        self._connection: http.client.HTTPConnection | None = None
        self._connected_to: tuple[str, str, int | None] | None = None
        self._socket: socket.socket | None = None
        self._login = ClientLogin()
        self._is_aborted = False

    def get(self, headers: Mapping[str, str]) -> Answer:
        """Returns the answer to a GET: 200, or 304 where `headers` are conditional.

        Raises: CameraError for any other answer; OSError, http.client.HTTPException when the connection fails.
        """
        address, answered, redirects = self._address, False, 0
        while True:
            answer = self._ask(address, headers)
            if answer.status in (OK, NOT_MODIFIED):
                if self._socket is not None:
                    self._socket.settimeout(SILENCE_S)
                return answer
            fields = answer.headers
            self.close()  # what an error page says is not read
            if answer.status in MOVED and "Location" in fields:
                redirects += 1
                if redirects > REDIRECTS:
                    raise CameraError(f"more than {REDIRECTS} redirects")
                address, answered = self._redirected(address, fields["Location"]), False
            elif answer.status == UNAUTHORIZED and not answered and address.user + address.password:
                self._login.take_challenge(fields.get_all("WWW-Authenticate", []))
                answered = True
            else:
                raise CameraError(_reason_of(answer, address))

    def abort(self) -> None:
        """Ends a wait for the camera that another thread is in."""
        self._is_aborted = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._socket = self._connected_to = None

    def _ask(self, address: NetworkAddress, headers: Mapping[str, str]) -> Answer:
        """Sends one request, a second time where a kept connection turns out to be closed."""
        place, connection = (address.scheme, address.host, address.port), self._connection
        if connection is not None and connection.sock is not None and self._connected_to == place:
            try:
                return self._request(connection, address, headers)
            except (ConnectionError, http.client.BadStatusLine):
                if self._is_aborted:
                    raise
        return self._request(self._connect(address), address, headers)

    def _connect(self, address: NetworkAddress) -> http.client.HTTPConnection:
        self.close()
        if address.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address.host, address.port, timeout=ANSWER_S, context=_make_tls_context()
            )
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=ANSWER_S)
        try:
            connection.connect()
        except ssl.SSLError as error:
            raise CameraError(f"{reason_of(error)}; try http:// or another port") from error
        except UnicodeError as error:  # a host name that can be none
            raise CameraError("the host's name is not valid") from error
        self._connection, self._socket = connection, connection.sock
        self._connected_to = address.scheme, address.host, address.port
        if self._is_aborted:
            raise ConnectionAbortedError("closed")
        return connection

    def _request(
        self, connection: http.client.HTTPConnection, address: NetworkAddress, headers: Mapping[str, str]
    ) -> Answer:
        connection.sock.settimeout(ANSWER_S)
        connection.putrequest("GET", address.target, skip_accept_encoding=True)
        for name, value in {"User-Agent": "shmcam", "Accept": "*/*", **headers}.items():
            connection.putheader(name, value)
        if login := self._login.answer(address.user, address.password, address.target):
            connection.putheader("Authorization", login.encode())
        connection.endheaders()
        return connection.getresponse()

    def _redirected(self, address: NetworkAddress, location: str) -> NetworkAddress:
        """Returns where the camera sends us. Another machine does not learn name and password."""
        target = parse_url(
            urljoin(f"{address.scheme}://{address.shown_place}{address.target}", location), "the redirect"
        )
        if target.scheme not in HTTP:
            raise CameraError(f"a redirect to {target.scheme}://")
        is_same = target.host.lower() == address.host.lower() and (address.scheme, target.scheme) != ("https", "http")
        if not is_same:
            self._login = ClientLogin()
            return target
        return target if target.user else target.with_person(address)


def _make_tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.options |= 0x4  # ssl.OP_LEGACY_SERVER_CONNECT, which has that name since Python 3.12
    return context


def _reason_of(answer: Answer, address: NetworkAddress) -> str:
    if answer.status == UNAUTHORIZED:
        refused = address.user or address.password
        return "the camera refuses the name and password" if refused else "the camera wants a name and a password"
    phrase = re.sub(r"[^ -~]", "", answer.reason or "")[:60]
    return f"the camera answers {answer.status} {phrase}".rstrip()
