"""One line of `shmcam doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, and what would help."""

    level: Literal["ok", "note", "problem"]
    text: str
    type_this: str = ""
    """A line for the shell; empty: nothing to do."""


def ok(text: str) -> Finding:
    """Say that something is as it should be."""
    return Finding("ok", text)


def note(text: str, type_this: str = "") -> Finding:
    """Say something worth knowing that stops nothing."""
    return Finding("note", text, type_this)


def problem(text: str, type_this: str = "") -> Finding:
    """Say what is wrong."""
    return Finding("problem", text, type_this)
