"""Who may in: token, password, the signed cookie a login earns, and the brake on guessing.

Pure: time and secrets come in as arguments, nothing here touches a socket. Secrets are compared as bytes in constant
time (`hmac.compare_digest`); nothing here is ever logged.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

COOKIE = "shmcam_pass"
PASS_LIFE_S = 7 * 24 * 3600
"""A login lasts a week; changing password or token ends it at once, because they sign the cookie."""

TOKEN_LENGTH_MIN = 16
PASSWORD_LENGTH_MIN = 8

FAILURES_MAX = 5
FAILURE_WINDOW_S = 60.0
"""Five wrong guesses a minute and peer, as in shared/faults.md 3 row 5."""

PEERS_REMEMBERED = 1024
"""Bound of the table of failures; the longest silent peer is forgotten first."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens the door; both empty: it stands open (loopback, or insecure_no_auth)."""

    token: str = ""
    password: str = ""

    @property
    def needed(self) -> bool:
        """Whether anything must be shown at all."""
        return bool(self.token or self.password)

    def opens(self, guess: str) -> bool:
        """Whether this is the token or the password."""
        token, password, given = self.token.encode(), self.password.encode(), guess.encode(errors="replace")
        by_token = hmac.compare_digest(token, given) and bool(token)
        by_password = hmac.compare_digest(password, given) and bool(password)
        return by_token or by_password


class LoginCookies:
    """Makes and checks login cookies: `<expiry>.<nonce>.<signature>`, so that they survive our restart."""

    def __init__(self, door: Credentials) -> None:
        self._key = sha256(f"shmcam pass\0{door.token}\0{door.password}".encode()).digest()
        self._revoked: OrderedDict[str, None] = OrderedDict()

    def issue(self, now_s: float) -> str:
        """Make a cookie value; `now_s` is wall time."""
        said = f"{int(now_s) + PASS_LIFE_S}.{secrets.token_urlsafe(12)}"
        return f"{said}.{self._sign(said)}"

    def valid(self, value: str, now_s: float) -> bool:
        """Whether we made this cookie, it has not run out and nobody logged out with it."""
        said, _, signature = value.rpartition(".")
        expiry, _, nonce = said.partition(".")
        if not hmac.compare_digest(self._sign(said).encode(), signature.encode(errors="replace")):
            return False
        return now_s < int(expiry) and nonce not in self._revoked

    def revoke(self, value: str) -> None:
        """Log out: this cookie opens nothing any more (until the streamer restarts, or it runs out)."""
        nonce = value.partition(".")[2].rpartition(".")[0]
        self._revoked[nonce[:64]] = None
        while len(self._revoked) > PEERS_REMEMBERED:
            self._revoked.popitem(last=False)

    def _sign(self, said: str) -> str:
        return hmac.new(self._key, said.encode(errors="replace"), sha256).hexdigest()


class GuessLimiter:
    """Counts wrong guesses per peer and says when it has been too many."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, peer: str, now_s: float) -> float:
        """Seconds this peer must wait before it may guess again; 0: it may."""
        recent = [at for at in self._failures.get(peer, ()) if now_s - at < FAILURE_WINDOW_S]
        if len(recent) < FAILURES_MAX:
            return 0.0
        return FAILURE_WINDOW_S - (now_s - recent[0])

    def failed(self, peer: str, now_s: float) -> None:
        """Remember a wrong guess; `now_s` is monotonic."""
        recent = [at for at in self._failures.pop(peer, ()) if now_s - at < FAILURE_WINDOW_S]
        self._failures[peer] = [*recent, now_s][-FAILURES_MAX:]
        while len(self._failures) > PEERS_REMEMBERED:
            self._failures.popitem(last=False)


def guess_of(authorization: str) -> str | None:
    """The secret in an Authorization header (Bearer, or the password of Basic); None: there is none."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return b64decode(rest.strip(), validate=True).decode(errors="replace").partition(":")[2]
        except ValueError:  # not base64, or not even ASCII
            return ""
    return None


def weakness(door: Credentials) -> str:
    """What is wrong with the configured secrets, for a refusal to start; empty: nothing."""
    if door.token and len(door.token) < TOKEN_LENGTH_MIN:
        return f"http.token: {len(door.token)} characters; must be at least {TOKEN_LENGTH_MIN}"
    if door.password and len(door.password) < PASSWORD_LENGTH_MIN:
        return f"http.password: {len(door.password)} characters; must be at least {PASSWORD_LENGTH_MIN}"
    return ""
