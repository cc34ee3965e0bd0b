"""Finds the line of a TOML file on which a key stands, for error messages (tomllib does not tell)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HEADER = re.compile(r"^\s*\[([^\[\]]+)\]\s*(#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+?)\s*=")


def line_of(text: str, place: Sequence[str]) -> int | None:
    """Line (from 1) of `place`, a table or a key as its dotted parts; None where it is not written in the text."""
    wanted = list(place)
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            if table == wanted:
                return number
        elif (key := _KEY.match(line)) and [*table, *_parts(key[1])] == wanted:
            return number
    return None


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]
