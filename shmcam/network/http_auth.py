"""Answers a challenge for a name and a password: Digest where it is offered, else Basic. Pure.

Source: RFC 7616 (Digest, with RFC 2069's form for old cameras), RFC 7617 (Basic).
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

_PARAMETER = re.compile(r'([a-z0-9-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.IGNORECASE)
_SCHEME = re.compile(r"(?:^|,)\s*(digest|basic)\b", re.IGNORECASE)

ALGORITHMS = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
"""RFC 7616 6.1, and hashlib's names."""


@dataclass
class DigestChallenge:
    """One challenge, which also answers for later requests: the nonce is counted on."""

    parameters: dict[str, str]
    client_nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    _count: int = field(default=0, init=False)

    @property
    def is_answerable(self) -> bool:
        """True where we know the algorithm and the quality of protection."""
        known = self._algorithm in ALGORITHMS and ALGORITHMS[self._algorithm] in hashlib.algorithms_available
        return known and "nonce" in self.parameters and self._quality is not None

    @property
    def _algorithm(self) -> str:
        return self.parameters.get("algorithm", "MD5").upper().removesuffix("-SESS")

    @property
    def _quality(self) -> str | None:
        """`auth`, `auth-int`, empty (RFC 2069 knew none), or None: only others."""
        if "qop" not in self.parameters:
            return ""
        offered = [word.strip().lower() for word in self.parameters["qop"].split(",")]
        return next((word for word in ("auth", "auth-int") if word in offered), None)

    def answer(self, user: str, password: str, target: str, *, method: str = "GET", body: bytes = b"") -> str:
        """Returns the Authorization header of a request for `target`."""
        self._count += 1
        given, quality, count = self.parameters, self._quality, f"{self._count:08x}"
        realm, nonce = given.get("realm", ""), given["nonce"]
        key = self._hash(f"{user}:{realm}:{password}")
        if given.get("algorithm", "").upper().endswith("-SESS"):
            key = self._hash(f"{key}:{nonce}:{self.client_nonce}")
        request = self._hash(f"{method}:{target}" + (f":{self._hash(body)}" if quality == "auth-int" else ""))
        middle = f"{nonce}:{count}:{self.client_nonce}:{quality}" if quality else nonce
        fields = {"username": user, "realm": realm, "nonce": nonce, "uri": target}
        fields["response"] = self._hash(f"{key}:{middle}:{request}")
        if "opaque" in given:
            fields["opaque"] = given["opaque"]
        words = [f'{name}="{_escape(value)}"' for name, value in fields.items()]
        if "algorithm" in given:
            words.append(f"algorithm={given['algorithm']}")
        if quality:
            words += [f"qop={quality}", f"nc={count}", f'cnonce="{self.client_nonce}"']
        return "Digest " + ", ".join(words)

    def _hash(self, text: str | bytes) -> str:
        data = text.encode() if isinstance(text, str) else text
        return hashlib.new(ALGORITHMS[self._algorithm], data, usedforsecurity=False).hexdigest()


def basic_answer(user: str, password: str) -> str:
    """Returns the Authorization header of the scheme Basic."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def choose_challenge(headers: Sequence[str]) -> DigestChallenge | None:
    """Returns the Digest challenge to answer, from all WWW-Authenticate headers; None: Basic must do."""
    for header in headers:
        _, *pieces = _SCHEME.split(header)  # the schemes, each followed by its parameters
        for scheme, text in zip(pieces[::2], pieces[1::2], strict=True):
            if scheme.lower() == "digest":
                found = _PARAMETER.findall(text)
                challenge = DigestChallenge({name.lower(): _unescape(quoted) or word for name, quoted, word in found})
                if challenge.is_answerable:
                    return challenge
    return None


class ClientLogin:
    """The login of one client's requests: none until a challenge has come."""

    def __init__(self) -> None:
        self._digest: DigestChallenge | None = None
        self._wants_basic = False

    def take_challenge(self, headers: Sequence[str]) -> None:
        """Notes what all WWW-Authenticate headers of a refusal ask for."""
        self._digest = choose_challenge(headers)
        self._wants_basic = self._digest is None

    def answer(self, user: str, password: str, target: str, *, method: str = "GET", body: bytes = b"") -> str:
        """Returns the Authorization header of a request for `target`; empty before a challenge."""
        if self._digest is not None:
            return self._digest.answer(user, password, target, method=method, body=body)
        return basic_answer(user, password) if self._wants_basic else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _unescape(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value)
