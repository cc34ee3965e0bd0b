"""The secrets that let a request in: token, password, the signed cookie of a login; and the limit on guesses.

Pure: time and secrets are arguments, and no function touches a socket. Secrets are compared as bytes in constant time
(`hmac.compare_digest`, also inside itsdangerous); none of them is ever logged.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

from itsdangerous import BadSignature, TimestampSigner

COOKIE = "shmcam_pass"
COOKIE_LIFETIME_S = 7 * 24 * 3600
"""A login lasts a week; a change of password or token ends it at once, because they are the key of the signature."""

TOKEN_LENGTH_MIN = 16
PASSWORD_LENGTH_MIN = 8

FAILURES_MAX = 5
FAILURE_WINDOW_S = 60.0
"""Five wrong guesses per minute and peer (shared/faults.md 3 row 5)."""

TABLE_ROWS_MAX = 1024
"""The bound of each table here (failures by peer, revoked cookies); the oldest entry is forgotten first."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The configured secrets; with both empty every request is let in (loopback, or insecure_no_auth)."""

    token: str = ""
    password: str = ""

    @property
    def is_set(self) -> bool:
        """True if a request must show a secret."""
        return bool(self.token or self.password)

    def match(self, guess: str) -> bool:
        """Returns whether the guess is the token or the password."""
        token, password, given = self.token.encode(), self.password.encode(), guess.encode(errors="replace")
        by_token = hmac.compare_digest(token, given) and bool(token)
        by_password = hmac.compare_digest(password, given) and bool(password)
        return by_token or by_password


class _CookieSigner(TimestampSigner):
    """itsdangerous's signer with a given time instead of `time.time()`."""

    def __init__(self, key: bytes, now_s: float = 0.0) -> None:
        super().__init__(key, salt=COOKIE, digest_method=sha256)
        self._now_s = now_s

    def get_timestamp(self) -> int:
        """Returns the time of signing, seconds of wall time."""
        return int(self._now_s)


class LoginCookies:
    """The login cookies: `<nonce>.<timestamp>.<signature>`, valid across restarts because the secrets are the key."""

    def __init__(self, credentials: Credentials) -> None:
        self._key = sha256(f"shmcam pass\0{credentials.token}\0{credentials.password}".encode()).digest()
        self._revoked: OrderedDict[bytes, None] = OrderedDict()

    def issue(self, now_s: float) -> str:
        """Returns a new cookie value; `now_s` is wall time."""
        return _CookieSigner(self._key, now_s).sign(secrets.token_urlsafe(12)).decode()

    def is_valid(self, value: str, now_s: float) -> bool:
        """Returns whether the cookie bears our signature, has not expired and was not revoked. Never raises."""
        try:
            nonce, issued_s = self._unsign(value)
        except BadSignature:
            return False
        return now_s < issued_s + COOKIE_LIFETIME_S and nonce not in self._revoked

    def revoke(self, value: str) -> None:
        """Makes one cookie invalid, until it expires or the streamer restarts; ignores a value we did not sign."""
        try:
            nonce, _ = self._unsign(value)
        except BadSignature:
            return
        self._revoked[nonce] = None
        while len(self._revoked) > TABLE_ROWS_MAX:
            self._revoked.popitem(last=False)

    def _unsign(self, value: str) -> tuple[bytes, float]:
        """Returns nonce and time of signing. Raises: BadSignature, also for what is not UTF-8."""
        # No `max_age`: it refuses cookies from the future, and a Pi without a clock chip starts in the past.
        nonce, issued = _CookieSigner(self._key).unsign(value.encode(errors="replace"), return_timestamp=True)
        return nonce, issued.timestamp()


class GuessLimiter:
    """The limit on wrong guesses, per peer."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def get_wait_s(self, peer: str, now_s: float) -> float:
        """Returns the seconds until this peer may guess again, 0 if it may now; `now_s` is monotonic."""
        recent = [at for at in self._failures.get(peer, ()) if now_s - at < FAILURE_WINDOW_S]
        if len(recent) < FAILURES_MAX:
            return 0.0
        return FAILURE_WINDOW_S - (now_s - recent[0])

    def count_failure(self, peer: str, now_s: float) -> None:
        """Counts a wrong guess; `now_s` is monotonic."""
        recent = [at for at in self._failures.pop(peer, ()) if now_s - at < FAILURE_WINDOW_S]
        self._failures[peer] = [*recent, now_s][-FAILURES_MAX:]
        while len(self._failures) > TABLE_ROWS_MAX:
            self._failures.popitem(last=False)


def guess_of(authorization: str) -> str | None:
    """Returns the secret of an Authorization header (Bearer, or the password of Basic); None without such a secret."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return b64decode(rest.strip(), validate=True).decode(errors="replace").partition(":")[2]
        except ValueError:  # not base64, or not even ASCII
            return ""
    return None


def find_weakness(credentials: Credentials) -> str:
    """Returns why the configured secrets are too weak to start with; empty if they are good enough."""
    if credentials.token and len(credentials.token) < TOKEN_LENGTH_MIN:
        return f"http.token: {len(credentials.token)} characters; must be at least {TOKEN_LENGTH_MIN}"
    if credentials.password and len(credentials.password) < PASSWORD_LENGTH_MIN:
        return f"http.password: {len(credentials.password)} characters; must be at least {PASSWORD_LENGTH_MIN}"
    return ""
