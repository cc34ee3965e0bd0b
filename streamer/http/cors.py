"""CORS: pages of the origins in `http.origins` may read our answers (https://fetch.spec.whatwg.org/#http-cors-protocol).

A browser sends such a page's request with its Origin, and shows the page the answer only if we name that origin in it.
Before a request that a form could not send, it asks with OPTIONS (preflight), without any secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

EXPOSED_HEADERS = "X-Frame-Id, X-Timestamp, X-Dark-Score, X-Night, X-Signal, ETag, Location, Retry-After"
"""The headers of ours that a script of a listed origin may read; the usual ones it may always."""

PREFLIGHT_LIFETIME_S = 600
_DEFAULT_PORTS = {"http": 80, "https": 443}


def normalize_origin(text: str) -> str:
    """Returns an origin as browsers write it: in lower case, without its scheme's own port."""
    text = text.lower()
    try:
        parts = urlsplit(text)
        if parts.port is not None and parts.port == _DEFAULT_PORTS.get(parts.scheme):
            return text.rpartition(":")[0]
    except ValueError:
        return text
    return text


def cors_headers_of(origins: frozenset[str], origin: str | None) -> dict[str, str]:
    """Returns the headers that let a listed origin read an answer; for any other origin, none that do."""
    if not origins:
        return {}
    if origin is None or origin not in origins:
        return {"Vary": "Origin"}
    return {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": EXPOSED_HEADERS,
    }


def preflight_headers_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the further headers of the answer to a preflight whose origin is listed."""
    answer = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Range, If-None-Match, X-Shmcam",
        "Access-Control-Max-Age": str(PREFLIGHT_LIFETIME_S),
    }
    if "Access-Control-Request-Private-Network" in headers:  # Chromium, from a page of a public address
        answer["Access-Control-Allow-Private-Network"] = "true"
    return answer
