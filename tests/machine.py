"""What tests ask of the machine they run on: patience, room, programs. What is missing skips, and says so."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytest

PATIENCE = 3.0
"""Deadlines of polls are this many times what the test says: they are against hangs, and cost nothing otherwise."""

SHORT = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
"""Where folders with sockets go: their paths end at 107 bytes, and $TMPDIR may be long."""


def until(condition: Callable[[], Any], seconds: float = 30.0, what: str | Callable[[], str] = "") -> Any:
    """Poll until `condition()` is true and return it; a deadline that passes fails the test with `what`."""
    deadline = time.monotonic() + PATIENCE * seconds
    while not (value := condition()):
        said = what() if callable(what) else what or condition
        assert time.monotonic() < deadline, f"not within {PATIENCE * seconds} s: {said}"
        time.sleep(0.02)
    return value


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one of these programs is not installed (packaging/needs.sh test)."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def need_shared_memory(wanted_bytes: int) -> None:
    """Skip the running test where /dev/shm has no room for its rings, as in a container with Docker's 64 MB."""
    place = os.statvfs("/dev/shm")
    free_bytes = place.f_bavail * place.f_frsize
    if free_bytes < wanted_bytes:
        pytest.skip(f"needs {wanted_bytes / 1e6:.0f} MB in /dev/shm, {free_bytes / 1e6:.0f} MB are free")
