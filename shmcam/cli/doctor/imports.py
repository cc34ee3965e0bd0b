"""Imports packages in a child process: what is installed may still be built for another numpy, or crash."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

IMPORT_S = 60
"""Limit for all imports; a Pi Zero with a cold disk takes about 15 s for OpenCV, PyAV and Picamera2 together."""

_CHILD = """
import importlib, sys
for name in sys.argv[1:]:
    print(name, end="\\t", flush=True)
    try:
        importlib.import_module(name)
    except BaseException as error:
        first = (str(error).strip().splitlines() or [""])[0]
        print(type(error).__name__ + ": " + first, flush=True)
    else:
        print(flush=True)
"""


def find_import_errors(modules: Sequence[str]) -> dict[str, str]:
    """Imports modules one after the other in a child process. Returns: the error of each that cannot be imported.

    A module that crashes or hangs the child is named, and the rest is tried by another child.
    """
    command = [sys.executable, "-P", "-c", _CHILD, *modules]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=IMPORT_S, check=False)
        output, end = done.stdout, _end_of(done.returncode)
    except subprocess.TimeoutExpired as hanging:
        output, end = hanging.stdout or b"", f"it hangs for {IMPORT_S} s"
    rows = [line.split("\t", 1) for line in output.decode(errors="replace").splitlines() if "\t" in line]
    errors = {name: error for name, error in rows if error and name in modules}
    tried = [name for name, _ in rows if name in modules]
    if end and tried:
        errors[tried[-1]] = end
        errors.update(find_import_errors(modules[modules.index(tried[-1]) + 1 :]))
    return errors


def _end_of(code: int) -> str:
    if code < 0:
        return f"the import ends Python with {signal.Signals(-code).name}"
    return f"the import ends Python with exit {code}" if code else ""
