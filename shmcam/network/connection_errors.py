"""Why a peer cannot be reached, in words for status and log, without addresses and numbers of a library. Pure."""

from __future__ import annotations

import ssl


def reason_of(problem: BaseException) -> str:
    """Returns the reason of a failed connection, request or read; whatever a library raised, it has words."""
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, ssl.SSLCertVerificationError):  # "Hostname mismatch, certificate is not valid for 'host'"
        return f"certificate of the server: {problem.verify_message.partition(',')[0]}"
    if isinstance(problem, ssl.SSLError):
        words = (problem.reason or "it ended the connection").replace("_", " ").lower()
        return f"no TLS there: {words}"
    text = problem.strerror if isinstance(problem, OSError) else ""
    return text or str(problem) or type(problem).__name__
