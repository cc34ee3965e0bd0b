"""The aiohttp application with what the settings say about it, and its run on a listening socket."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from shmcam.config.settings import Settings
from shmcam.network.peer_address import is_loopback
from streamer.auth.credentials import Credentials, find_weakness
from streamer.auth.forwarded import TrustedProxies
from streamer.auth.policy import Accounts, Guard, ServerIdentity, find_exposure
from streamer.http import expect_continue
from streamer.http.connection import ConnectionLimits, ConnectionTable, HttpConnection
from streamer.http.context import CONTEXT, Context
from streamer.http.cors import normalize_origin
from streamer.http.listener import accept_forever
from streamer.http.middleware import add_security_headers, check_request
from streamer.http.request_body import BODY_BYTES_MAX
from streamer.http.routes import build_routes
from streamer.settings import HttpSettings, MjpegServerSettings

log = logging.getLogger(__name__)


class CannotServe(ValueError):
    """Settings of [http] that forbid to start; a person must change them."""


def build_application(context: Context) -> web.Application:
    """Returns the application: routes, guard and headers."""
    app = web.Application(middlewares=[check_request], client_max_size=BODY_BYTES_MAX)
    app[CONTEXT] = context
    app.on_response_prepare.append(add_security_headers)
    app.add_routes(build_routes())
    return app


def identity_of(http: HttpSettings) -> ServerIdentity:
    """Returns the names by which this server may be addressed."""
    hosts = {name.lower() for name in http.hosts}
    if not is_loopback(http.bind):
        own_name = socket.gethostname().lower()
        hosts |= {own_name, f"{own_name}.local"}
    return ServerIdentity(http.bind, frozenset(hosts), frozenset(map(normalize_origin, http.origins)))


def credentials_of(http: HttpSettings) -> Credentials:
    """Returns the secrets. Raises: CannotServe if one is too weak, or if the network could come in without."""
    credentials = Credentials(http.token, http.password, http.viewer_token, http.viewer_password)
    if problem := find_weakness(credentials) or find_exposure(http.bind, credentials, insecure=http.insecure_no_auth):
        raise CannotServe(problem)
    if not credentials.is_set and not is_loopback(http.bind):
        log.warning("http.insecure_no_auth is set: everybody who reaches %s sees and controls the cameras", http.bind)
    return credentials


def warn_if_readable(settings: Settings) -> None:
    """Logs a warning if every user of this machine can read a secret in the file."""
    http, path = settings.table(HttpSettings), settings.path
    secrets = (http.token, http.password, http.viewer_token, http.viewer_password)
    if not any(secret and secret in settings.text for secret in secrets):
        return
    with suppress(OSError):  # the file is gone, so it cannot be read
        if path.stat().st_mode & stat.S_IROTH:
            log.warning("everybody on this machine can read the secret in %s; type: chmod o= %s", path.name, path)


def proxies_of(http: HttpSettings) -> TrustedProxies:
    """Returns the reverse proxies whose word counts."""
    return TrustedProxies(http.trusted_proxies, http.trusted_header)


def guard_of(http: HttpSettings) -> Guard:
    """Returns the check of all requests. Raises: CannotServe."""
    accounts = Accounts(local=http.local, insecure=http.insecure_no_auth, proxy_owners=frozenset(http.trusted_owners))
    return Guard(identity_of(http), credentials_of(http), accounts)


def connections_of(http: HttpSettings, mjpeg: MjpegServerSettings) -> ConnectionTable:
    """Returns the table of connections with its limits."""
    proxies = proxies_of(http)
    limits = ConnectionLimits(
        connections=http.max_connections,
        per_peer=http.max_connections_per_peer,
        endless_shared=mjpeg.max_streams - mjpeg.max_streams // 8,
        header_s=http.header_s,
        write_s=http.write_s,
        send_buffer_bytes=http.send_buffer_kib * 1024,
    )
    return ConnectionTable(limits, lambda address: is_loopback(address) or proxies.is_trusted(address))


def load_tls(settings: Settings) -> ssl.SSLContext | None:
    """Loads certificate and key. Returns: None if none are set. Raises: CannotServe."""
    http = settings.table(HttpSettings)
    if not http.tls_cert and not http.tls_key:
        return None
    if not http.tls_cert or not http.tls_key:
        raise CannotServe("http.tls_cert and http.tls_key belong together; `shmcam gen-cert` makes both")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.folder / http.tls_cert, settings.folder / http.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise CannotServe(f"http.tls_cert, http.tls_key: cannot be used: {error}") from None
    return context


@asynccontextmanager
async def run_server(context: Context, sock: socket.socket, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serves on a listening socket for the length of the block. Yields: the URL."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(build_application(context), handle_signals=False)
    await runner.setup()
    web_server = runner.server
    if web_server is None:
        raise RuntimeError("aiohttp has set nothing up")
    web_server.request_factory = expect_continue.hide_expectations(web_server.request_factory)
    connections = context.connections
    accepting = loop.create_task(
        accept_forever(sock, lambda: HttpConnection(connections, web_server, loop), tls, connections.count_eviction)
    )
    try:
        yield url_of(sock, tls)
    finally:
        context.closing.set()
        accepting.cancel()
        await asyncio.wait([accepting])  # only then may its descriptor be closed
        sock.close()
        for connection in list(connections.open):
            connection.force_close() if not connection.requests else connection.reset()
        await runner.cleanup()


def url_of(sock: socket.socket, tls: ssl.SSLContext | None) -> str:
    """Returns the URL for a browser on this machine."""
    host, port = sock.getsockname()[:2]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http{'s' if tls else ''}://{name}:{port}/"
