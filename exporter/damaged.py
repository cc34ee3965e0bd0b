"""State of our own that a power cut or a person damaged: put aside, so that it stops nobody a second time."""

from __future__ import annotations

import logging
import struct
import zipfile
import zlib
from pathlib import Path

log = logging.getLogger(__name__)

ENDING = ".damaged"
"""Added to the name; one per file is kept, for whoever wants to know what happened."""
DAMAGED = (EOFError, ValueError, KeyError, TypeError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error)
"""What reading an .npz raises that is empty, torn, or not ours. OSError is none of these: the file may be whole."""


def set_aside(path: Path, problem: Exception) -> None:
    """Rename a damaged file and say so; where the disk refuses that, it stays."""
    aside = path.with_name(path.name + ENDING)
    try:
        path.replace(aside)
    except OSError as refused:
        log.warning("damaged file stays path=%s reason=%s: %s", path, refused, problem)
        return
    log.warning("damaged file set aside path=%s as=%s reason=%s", path, aside.name, problem)
