"""The one check in front of every route: deny by default, decide without I/O.

Order of the questions: is the Host one of ours (DNS rebinding)? does another site drive the browser (Origin)? is the
peer guessing? does it show a secret? may this method change anything? Whatever is not allowed here is refused; the few
public paths are listed by name.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from shmcam.runtime.network import is_loopback
from streamer.auth.credentials import Credentials, GuessLimiter, LoginCookies, guess_of

PUBLIC = frozenset({"/login", "/static/login.js", "/static/style.css", "/static/icon.svg", "/api/v1/login"})
"""Open to everybody: what a person needs in order to log in, and nothing that shows or changes anything."""

SAFE_METHODS = frozenset({"GET", "HEAD"})
OWN_HEADER = "X-Shmcam"
"""A header no form and no image can send; the page sends it with each change."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the check needs to know of a request."""

    method: str
    path: str
    host: str
    """The Host header."""
    peer: str
    """Address of the other end."""
    origin: str | None = None
    content_type: str = ""
    authorization: str = ""
    token: str | None = None
    """From `?token=`, for players that cannot send headers."""
    cookie: str = ""
    own_header: bool = False
    upgrade: bool = False
    """A WebSocket wants to be opened."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not."""

    status: int
    reason: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Who we are."""

    bind: str
    names: frozenset[str]
    """Further host names, lower case."""
    origins: frozenset[str]
    """Origins of other pages that are welcome."""


class Guard:
    """Decides about requests; one per process."""

    def __init__(self, house: ServerIdentity, door: Credentials) -> None:
        self._house = house
        self._door = door
        self._brake = GuessLimiter()
        self.passes = LoginCookies(door)

    @property
    def needs_login(self) -> bool:
        """Whether anything must be shown at all."""
        return self._door.needed

    def refusal(self, facts: RequestFacts, now_s: float, wall_s: float) -> Refusal | None:
        """Decide about one request; None: let it in. `now_s` is monotonic, `wall_s` is wall time."""
        if not knows_host(self._house, facts.host):
            return Refusal(421, f"this server is not called {facts.host[:80]!r}; add the name to http.hosts")
        if (facts.upgrade or facts.method not in SAFE_METHODS) and not self._welcome(facts):
            return Refusal(403, f"origin {str(facts.origin)[:80]!r} may not do this; see http.origins")
        if facts.method not in SAFE_METHODS and facts.content_type != "application/json":
            return Refusal(415, f"{facts.method} needs Content-Type: application/json")
        if facts.path in PUBLIC or not self._door.needed:
            return None
        return self._shown(facts, now_s, wall_s)

    def login(self, guess: str, peer: str, now_s: float) -> Refusal | None:
        """Check a guess from the login page; None: it is right."""
        if wait_s := self._brake.wait_s(peer, now_s):
            return _slow_down(wait_s)
        if self._door.opens(guess):
            return None
        self._brake.failed(peer, now_s)
        return Refusal(401, "wrong token or password")

    # ---- inside

    def _shown(self, facts: RequestFacts, now_s: float, wall_s: float) -> Refusal | None:
        guess = facts.token if facts.token is not None else guess_of(facts.authorization)
        if guess is not None:
            return self.login(guess, facts.peer, now_s)
        if facts.cookie and self.passes.valid(facts.cookie, wall_s):
            return None if self._meant(facts) else Refusal(403, f"a change needs the header {OWN_HEADER}: 1")
        return Refusal(401, "token or password needed", {"WWW-Authenticate": 'Bearer realm="shmcam"'})

    def _meant(self, facts: RequestFacts) -> bool:
        """A cookie comes by itself, so a change must also show that our own page sent it."""
        return facts.method in SAFE_METHODS or facts.own_header or facts.origin is not None

    def _welcome(self, facts: RequestFacts) -> bool:
        """Programs send no Origin; a browser does, and it must be our page or one that is listed."""
        if facts.origin is None:
            return True
        if facts.origin in self._house.origins:
            return True
        return bool(facts.host) and _netloc(facts.origin) == facts.host.lower()


def knows_host(house: ServerIdentity, host: str) -> bool:
    """Whether the Host header names us. An address cannot be rebound, so any will do unless we are loopback only."""
    name = _hostname(host)
    if name in house.names or name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == house.bind.lower()
    return address.is_loopback or not is_loopback(house.bind)


def open_door(bind: str, door: Credentials, *, insecure: bool) -> str:
    """Why we must not start like this; empty: we may."""
    if is_loopback(bind) or door.needed or insecure:
        return ""
    return (
        f"http.bind = {bind!r} is reachable from other machines; set http.token or http.password "
        "(or http.insecure_no_auth = true to let everybody in)"
    )


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _slow_down(wait_s: float) -> Refusal:
    return Refusal(429, f"too many wrong guesses; wait {wait_s:.0f} s", {"Retry-After": str(int(wait_s) + 1)})
