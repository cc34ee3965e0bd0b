"""A finding: one line of `shmcam doctor`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Finding(Struct, frozen=True):
    """The result of one check, and the line to type against it."""

    level: Literal["ok", "note", "problem"]
    text: str
    type_this: str = ""
    """A line for the shell; empty: nothing to do."""


def ok(text: str) -> Finding:
    """Returns a finding that something is as it should be."""
    return Finding("ok", text)


def note(text: str, type_this: str = "") -> Finding:
    """Returns a finding that is worth knowing but stops nothing."""
    return Finding("note", text, type_this)


def problem(text: str, type_this: str = "") -> Finding:
    """Returns a finding that something is wrong."""
    return Finding("problem", text, type_this)
