"""The secrets that let a request in: token, password, the signed cookie of a login; and the limit on guesses.

Pure: time and secrets are arguments, and no function touches a socket. Secrets are compared as bytes in constant time
(`hmac.compare_digest`, also inside itsdangerous); none of them is ever logged.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b64decode
from collections import OrderedDict
from contextlib import suppress
from hashlib import sha256

from itsdangerous import BadSignature, TimestampSigner
from msgspec import Struct
from msgspec.structs import asdict

from streamer.auth.roles import Role

COOKIE = "shmcam_pass"
COOKIE_LIFETIME_S = 7 * 24 * 3600
"""A login lasts a week; a change of password or token ends it at once, because they are the key of the signature."""

TOKEN_LENGTH_MIN = 16
PASSWORD_LENGTH_MIN = 8

FAILURES_MAX = 5
FAILURE_WINDOW_S = 60.0
"""Five wrong guesses per minute and peer."""

TURN_S = 0.05
"""The pause between two guesses of a peer beyond that: an 8-letter password of a word list still takes hours."""

TURN_WAIT_MAX_S = 3.0
"""The longest wait for a turn; a peer has 32 connections, and a guess whose connection has ended learns nothing."""

TABLE_ROWS_MAX = 1024
"""The bound of each table here (failures by peer, revoked cookies); the oldest entry is forgotten first."""


class Credentials(Struct, frozen=True):
    """The configured secrets of the two accounts; without those of the owner no request need show one."""

    token: str = ""
    password: str = ""
    viewer_token: str = ""
    viewer_password: str = ""

    @property
    def is_set(self) -> bool:
        """True if a request must show a secret."""
        return bool(self.token or self.password)

    def find_role(self, guess: str) -> Role:
        """Returns the role that the guess opens; NOBODY if it is none of the secrets."""
        given, role = guess.encode(errors="replace"), Role.NOBODY
        for opens, secret in (
            (Role.VIEWER, self.viewer_token),
            (Role.VIEWER, self.viewer_password),
            (Role.OWNER, self.token),
            (Role.OWNER, self.password),
        ):
            if hmac.compare_digest(secret.encode(), given) and secret:
                role = opens
        return role

    def key_of(self, role: Role) -> bytes:
        """Returns the key that signs this role's cookies; another secret of the role makes another key."""
        if role is Role.OWNER:
            return sha256(f"shmcam pass\0{self.token}\0{self.password}".encode()).digest()
        return sha256(f"shmcam viewer\0{self.viewer_token}\0{self.viewer_password}".encode()).digest()


class _CookieSigner(TimestampSigner):
    """itsdangerous's signer with a given time instead of `time.time()`."""

    def __init__(self, key: bytes, now_s: float = 0.0) -> None:
        super().__init__(key, salt=COOKIE, digest_method=sha256)
        self._now_s = now_s

    def get_timestamp(self) -> int:
        """Returns the time of signing, seconds of wall time."""
        return int(self._now_s)


class LoginCookies:
    """The login cookies: `<nonce>.<timestamp>.<signature>`, valid across restarts because the secrets are the key.

    The key tells the role, so that a viewer stays logged in when the owner's password changes.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._keys = {role: credentials.key_of(role) for role in (Role.OWNER, Role.VIEWER)}
        self._revoked: OrderedDict[bytes, None] = OrderedDict()

    def issue(self, role: Role, now_s: float) -> str:
        """Returns a new cookie value; `now_s` is wall time."""
        return _CookieSigner(self._keys[role], now_s).sign(secrets.token_urlsafe(12)).decode()

    def find_role(self, value: str, now_s: float) -> Role:
        """Returns the role of a cookie with our signature that is neither expired nor revoked. Never raises."""
        role, nonce, issued_s = self._unsign(value)
        return role if now_s < issued_s + COOKIE_LIFETIME_S and nonce not in self._revoked else Role.NOBODY

    def revoke(self, value: str) -> None:
        """Makes one cookie invalid, until it expires or the streamer restarts; ignores a value we did not sign."""
        role, nonce, _ = self._unsign(value)
        if role is Role.NOBODY:
            return
        self._revoked[nonce] = None
        while len(self._revoked) > TABLE_ROWS_MAX:
            self._revoked.popitem(last=False)

    def _unsign(self, value: str) -> tuple[Role, bytes, float]:
        """Returns role, nonce and time of signing; NOBODY for what we did not sign, also for what is not UTF-8."""
        for role, key in self._keys.items():
            with suppress(BadSignature):
                # No `max_age`: it refuses cookies from the future, and a Pi without a clock chip starts in the past.
                nonce, issued = _CookieSigner(key).unsign(value.encode(errors="replace"), return_timestamp=True)
                return role, nonce, issued.timestamp()
        return Role.NOBODY, b"", 0.0


class GuessLimiter:
    """The limit on wrong guesses, per peer (`peer_key_of`).

    The right secret is never refused: behind one router, or one proxy, a stranger's guesses would lock its owner out.
    So after FAILURES_MAX wrong guesses each further one waits for its turn, and only a wrong one is refused then.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._turns: OrderedDict[str, float] = OrderedDict()

    def take_turn(self, peer: str, now_s: float) -> float:
        """Returns the seconds to wait before this peer's guess is looked at; `now_s` is monotonic."""
        if not self.get_wait_s(peer, now_s):
            return 0.0
        turn_s = min(max(now_s, self._turns.pop(peer, 0.0) + TURN_S), now_s + TURN_WAIT_MAX_S)
        self._turns[peer] = turn_s
        while len(self._turns) > TABLE_ROWS_MAX:
            self._turns.popitem(last=False)
        return turn_s - now_s

    def get_wait_s(self, peer: str, now_s: float) -> float:
        """Returns the seconds until a wrong guess of this peer counts as its first again, 0 if it may guess freely."""
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
    secrets_set = {name: value for name, value in asdict(credentials).items() if value}
    for name, value in secrets_set.items():
        length_min = TOKEN_LENGTH_MIN if name.endswith("token") else PASSWORD_LENGTH_MIN
        if len(value) < length_min:
            return f"http.{name}: {len(value)} characters; must be at least {length_min}"
    if secrets_set and not credentials.is_set:
        return f"http.{next(iter(secrets_set))} needs http.token or http.password, for the owner"
    if len(set(secrets_set.values())) < len(secrets_set):
        return f"http.{', http.'.join(secrets_set)}: must all differ"
    return ""
