"""Draws a progress bar for long work at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Takes the units done and the units in all."""

BAR = 30
"""The characters of a progress bar."""


def make_progress_bar(what: str) -> Progress:
    """Returns a function that draws a bar on standard error, each time over the last one."""

    def draw(done: int, total: int) -> None:
        filled = BAR * done // max(1, total)
        end = "\n" if done >= total else ""
        print(f"\r{what} [{'#' * filled}{'.' * (BAR - filled)}] {done}/{total}", end=end, file=sys.stderr, flush=True)

    return draw
