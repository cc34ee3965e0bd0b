"""The check of every request before its route: deny by default, decide without I/O.

The order of the checks: does the Host header name this server (DNS rebinding)? does another site drive the browser
(Origin)? who sends it, by a secret, by a trusted proxy's word, or as a user of this machine? may that role do this
(roles.py)? A request that is not allowed here is refused; the few public paths are listed by name.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from shmcam.network.peer_address import is_loopback, peer_key_of
from streamer.auth.credentials import Credentials, GuessLimiter, LoginCookies, guess_of
from streamer.auth.peer_uid import LocalUsers
from streamer.auth.roles import LOCAL_PATHS, SAFE_METHODS, Access, Role, find_role_needed, find_type_needed

OWN_HEADER = "X-Shmcam"
"""A header that neither a form nor an image can send; the page sends it with each change."""


class RequestFacts(Struct, frozen=True):
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
    user: str = ""
    """The person who has logged in at a trusted proxy (`http.trusted_header`)."""
    is_local: bool = False
    """True if the other end of the connection is on this machine."""
    is_forwarded: bool = False
    """True if a proxy has sent the request for somebody else, whether we trust that proxy or not."""
    uid: int | None = None
    """The user at the other end of a local connection; None: not known, or not asked for."""

    @property
    def guess(self) -> str | None:
        """The secret that the request shows; None: none."""
        return self.token if self.token is not None else guess_of(self.authorization)


class Refusal(Struct, frozen=True):
    """The reason why a request is refused, and the status that says so."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()


class ServerIdentity(Struct, frozen=True):
    """The names by which this server may be addressed."""

    bind: str
    hosts: frozenset[str]
    """Further host names, lower case."""
    origins: frozenset[str]
    """Origins of other pages that may use this server."""


class Accounts(Struct, frozen=True):
    """Those who get in without a secret."""

    local: Literal["owner", "look", "all"] = "look"
    """Without secrets, what users of this machine may do who are no owners: nothing, look, everything."""
    insecure: bool = False
    """True: without secrets, everybody may do everything (`http.insecure_no_auth`)."""
    users: LocalUsers = msgspec.field(default_factory=lambda: LocalUsers(os.geteuid(), os.getegid()))
    proxy_owners: frozenset[str] = frozenset()
    """The people whom a trusted proxy names that are owners; others are viewers."""


class Guard:
    """The check of all requests; one per process."""

    def __init__(self, identity: ServerIdentity, credentials: Credentials, accounts: Accounts) -> None:
        self._identity = identity
        self._credentials = credentials
        self._accounts = accounts
        self._limiter = GuessLimiter()
        self.cookies = LoginCookies(credentials)

    @property
    def is_login_required(self) -> bool:
        """True if a request must show a secret."""
        return self._credentials.is_set

    @property
    def is_open(self) -> bool:
        """True if everybody may do everything, but for whom a proxy sends: `local = "all"` is for this machine."""
        return not self._credentials.is_set and (self._accounts.insecure or self._accounts.local == "all")

    def needs_uid(self, request: RequestFacts) -> bool:
        """Returns whether the decision depends on the user at the other end of a local connection."""
        return request.is_local and (bool(request.user) or not (self._credentials.is_set or self.is_open))

    def take_turn(self, peer: str, now_s: float) -> float:
        """Returns the seconds to wait before a guess of this peer is checked; `now_s` is monotonic."""
        return self._limiter.take_turn(peer_key_of(peer), now_s)

    def check(self, request: RequestFacts, now_s: float, wall_s: float) -> Access | Refusal:
        """Decides about one request. `now_s` is monotonic, `wall_s` is wall time."""
        if (refusal := self._check_site(request)) is not None:
            return refusal
        needed = find_role_needed(request.method, request.path)
        if needed is Role.NOBODY or request.preflight:
            return Access(Role.NOBODY)  # a preflight bears no secret, and changes nothing
        access = self._find_access(request, now_s, wall_s)
        if isinstance(access, Refusal) and _is_local_look(request):
            return Access(Role.NOBODY)
        if isinstance(access, Access) and access.role < needed:
            return Refusal(403, f"only an owner may do this: {access.reason}")
        return access

    def check_guess(self, guess: str, peer: str, now_s: float) -> Role | Refusal:
        """Compares a guess with the secrets and counts a wrong one; `now_s` is monotonic.

        The right one is right however many wrong ones came before it; `take_turn` tells when to ask.
        """
        if role := self._credentials.find_role(guess):
            return role
        key = peer_key_of(peer)
        if wait_s := self._limiter.get_wait_s(key, now_s):
            return _refuse_for(wait_s)
        self._limiter.count_failure(key, now_s)
        return Refusal(401, "wrong token or password")

    # ---- inside

    def _check_site(self, request: RequestFacts) -> Refusal | None:
        """Checks that the request is for this server, and that no other site makes a browser send it."""
        # Only programs leave Host out; every browser sends it, so there is no rebinding to fear.
        if request.host is not None and not is_own_host(self._identity, request.host):
            return Refusal(421, f"this server is not called {request.host[:80]!r}; add the name to http.hosts")
        needs_origin = request.upgrade or request.preflight or request.method not in SAFE_METHODS
        if needs_origin and not self._is_origin_allowed(request):
            return Refusal(403, f"origin {str(request.origin)[:80]!r} may not do this; see http.origins")
        if request.method in SAFE_METHODS:
            return None
        needed = find_type_needed(request.method, request.path)
        if needed and request.content_type != needed:
            return Refusal(415, f"{request.method} needs Content-Type: {needed}")
        return None

    def _find_access(self, request: RequestFacts, now_s: float, wall_s: float) -> Access | Refusal:
        """Returns what the sender of a request may do."""
        if (access := self._find_proxy_user(request)) is not None:
            return access
        return self._check_secret(request, now_s, wall_s) if self._credentials.is_set else self._find_local(request)

    def _find_proxy_user(self, request: RequestFacts) -> Access | Refusal | None:
        """Returns the access of a person who has logged in at a trusted proxy; None: there is none."""
        if not request.user:
            return None
        users = self._accounts.users
        if request.is_local and (request.uid is None or not users.is_proxy(request.uid)):
            return None  # any program of this machine may connect from loopback, and invent the header
        if not _is_deliberate(request):
            return Refusal(403, f"a change needs the header {OWN_HEADER}: 1")
        if request.user in self._accounts.proxy_owners:
            return Access(Role.OWNER)
        return Access(Role.VIEWER, reason=f"{request.user[:64]} is not in http.trusted_owners")

    def _check_secret(self, request: RequestFacts, now_s: float, wall_s: float) -> Access | Refusal:
        guess = request.guess
        if guess is not None:
            answer = self.check_guess(guess, request.peer, now_s)
            if isinstance(answer, Refusal):
                return replace(answer, headers=_challenges_for(request)) if answer.status == 401 else answer
            return _access_by_secret(answer)
        if request.cookie and (role := self.cookies.find_role(request.cookie, wall_s)):
            if not _is_deliberate(request):
                return Refusal(403, f"a change needs the header {OWN_HEADER}: 1")
            return _access_by_secret(role)
        return Refusal(401, "token or password needed", _challenges_for(request))

    def _find_local(self, request: RequestFacts) -> Access | Refusal:
        """Returns the access of a request that need show no secret."""
        accounts = self._accounts
        if request.is_forwarded and not accounts.insecure:  # the proxy's own user says nothing about whom it serves
            reason = "it comes through a proxy; log in with a password (http.password)"
        elif self.is_open:
            return Access(Role.OWNER, is_known=is_loopback(self._identity.bind))
        elif request.uid is not None and accounts.users.is_owner(request.uid):
            return Access(Role.OWNER)
        else:
            reason = accounts.users.explain(request.uid)
        if accounts.local != "owner":
            return Access(Role.VIEWER, is_known=False, reason=reason)
        return Refusal(403, 'only an owner may do this (http.local = "owner")')

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


def _is_local_look(request: RequestFacts) -> bool:
    """Returns whether a program of this machine looks at LOCAL_PATHS for itself, and shows no secret."""
    is_look = request.path in LOCAL_PATHS and request.method in SAFE_METHODS
    return is_look and request.is_local and not request.is_forwarded and request.guess is None


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


def _access_by_secret(role: Role) -> Access:
    reason = "you are logged in as a viewer; log out, and in with the owner's password" if role < Role.OWNER else ""
    return Access(role, reason=reason)


def _refuse_for(wait_s: float) -> Refusal:
    return Refusal(429, f"too many wrong guesses; wait {wait_s:.0f} s", (("Retry-After", str(int(wait_s) + 1)),))
