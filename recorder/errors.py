"""The recorder's own errors, by who must act."""

from __future__ import annotations


class RecorderError(Exception):
    """Base of the recorder's own errors."""


class EncoderUnavailable(RecorderError, RuntimeError):
    """No encoder can take these frames: a person must act (the message says what was tried)."""


class EncoderFailed(RecorderError, RuntimeError):
    """The open encoder refused a frame: open another one and give it the same frame."""
