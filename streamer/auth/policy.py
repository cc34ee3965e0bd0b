"""The check of every request before its route: deny by default, decide without I/O.

The order of the checks: does the Host header name this server (DNS rebinding)? does another site drive the browser
(Origin)? has the peer guessed too often? does the request carry a secret? may this method change anything? A request
that is not allowed here is refused; the few public paths are listed by name.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from shmcam.runtime.ip_addresses import is_loopback
from streamer.auth.credentials import Credentials, GuessLimiter, LoginCookies, guess_of

PUBLIC_PATHS = frozenset({"/login", "/static/login.js", "/static/style.css", "/static/icon.svg", "/api/v1/login"})
"""Paths without a login: all that the login page needs, and nothing that shows or changes anything."""

SAFE_METHODS = frozenset({"GET", "HEAD"})
OWN_HEADER = "X-Shmcam"
"""A header that neither a form nor an image can send; the page sends it with each change."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The parts of a request that the check reads."""

    method: str
    path: str
    host: str | None
    """The host that the client addressed; None: HTTP/1.0 without a Host header."""
    peer: str
    """The address of the client."""
    origin: str | None = None
    content_type: str = ""
    authorization: str = ""
    token: str | None = None
    """The value of `?token=`, for players that cannot send headers."""
    cookie: str = ""
    own_header: bool = False
    upgrade: bool = False
    """True if the request opens a WebSocket."""
    preflight: bool = False
    """True for the question of a browser whether a page of another origin may send a request (CORS)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a request is refused, and the status that says so."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """The names by which this server may be addressed."""

    bind: str
    hosts: frozenset[str]
    """Further host names, lower case."""
    origins: frozenset[str]
    """Origins of other pages that may use this server."""


class Guard:
    """The check of all requests; one per process."""

    def __init__(self, identity: ServerIdentity, credentials: Credentials) -> None:
        self._identity = identity
        self._credentials = credentials
        self._limiter = GuessLimiter()
        self.cookies = LoginCookies(credentials)

    @property
    def is_login_required(self) -> bool:
        """True if a request must show a secret."""
        return self._credentials.is_set

    def check(self, request: RequestFacts, now_s: float, wall_s: float) -> Refusal | None:
        """Decides about one request; None lets it in. `now_s` is monotonic, `wall_s` is wall time."""
        # Only programs leave Host out; every browser sends it, so there is no rebinding to fear.
        if request.host is not None and not is_own_host(self._identity, request.host):
            return Refusal(421, f"this server is not called {request.host[:80]!r}; add the name to http.hosts")
        if (request.upgrade or request.method not in SAFE_METHODS) and not self._is_origin_allowed(request):
            return Refusal(403, f"origin {str(request.origin)[:80]!r} may not do this; see http.origins")
        if request.preflight:
            return None  # it bears no secret, and changes nothing
        if request.method not in SAFE_METHODS and request.content_type != "application/json":
            return Refusal(415, f"{request.method} needs Content-Type: application/json")
        if request.path in PUBLIC_PATHS or not self._credentials.is_set:
            return None
        return self._check_secret(request, now_s, wall_s)

    def check_guess(self, guess: str, peer: str, now_s: float) -> Refusal | None:
        """Compares a guess with the secrets and counts a wrong one; None: it is right. `now_s` is monotonic."""
        if wait_s := self._limiter.get_wait_s(peer, now_s):
            return _refuse_for(wait_s)
        if self._credentials.match(guess):
            return None
        self._limiter.count_failure(peer, now_s)
        return Refusal(401, "wrong token or password")

    # ---- inside

    def _check_secret(self, request: RequestFacts, now_s: float, wall_s: float) -> Refusal | None:
        guess = request.token if request.token is not None else guess_of(request.authorization)
        if guess is not None:
            refusal = self.check_guess(guess, request.peer, now_s)
            return replace(refusal, headers=_challenges_for(request)) if refusal and refusal.status == 401 else refusal
        if request.cookie and self.cookies.is_valid(request.cookie, wall_s):
            return None if _is_deliberate(request) else Refusal(403, f"a change needs the header {OWN_HEADER}: 1")
        return Refusal(401, "token or password needed", _challenges_for(request))

    def _is_origin_allowed(self, request: RequestFacts) -> bool:
        """Returns whether the Origin is our page or a listed one; programs send none, which is allowed."""
        if request.origin is None:
            return True
        if request.origin in self._identity.origins:
            return True
        return bool(request.host) and _netloc_of(request.origin) == str(request.host).lower()


def is_own_host(identity: ServerIdentity, host: str) -> bool:
    """Returns whether the Host header names this server.

    An address cannot be rebound, so any address is accepted, unless the server listens on loopback only.
    """
    name = _hostname_of(host)
    if name in identity.hosts or name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == identity.bind.lower()
    return address.is_loopback or not is_loopback(identity.bind)


def find_exposure(bind: str, credentials: Credentials, *, insecure: bool) -> str:
    """Returns why the server must not start with this address and these secrets; empty if it may."""
    if is_loopback(bind) or credentials.is_set or insecure:
        return ""
    return (
        f"http.bind = {bind!r} is reachable from other machines; set http.token or http.password "
        "(or http.insecure_no_auth = true to let everybody in)"
    )


def _challenges_for(request: RequestFacts) -> tuple[tuple[str, str], ...]:
    """Returns the challenges of a 401 (RFC 9110, 11.6.1), each in a line of its own, as simple clients read one a line.

    Programs wait for Basic before they send a password. A script in a browser gets Bearer alone: for Basic the browser
    would open a dialog of its own, where our page goes to its login page.
    """
    bearer = ("WWW-Authenticate", 'Bearer realm="shmcam"')
    if request.own_header or request.origin is not None or request.cookie:
        return (bearer,)
    return ("WWW-Authenticate", 'Basic realm="shmcam", charset="UTF-8"'), bearer


def _is_deliberate(request: RequestFacts) -> bool:
    """Returns whether our own page sent the request: a browser adds the cookie by itself, so a change needs more."""
    return request.method in SAFE_METHODS or request.own_header or request.origin is not None


def _hostname_of(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def _netloc_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _refuse_for(wait_s: float) -> Refusal:
    return Refusal(429, f"too many wrong guesses; wait {wait_s:.0f} s", (("Retry-After", str(int(wait_s) + 1)),))
