"""Runs rclone: its command lines, its progress, and what it says went wrong.

Secrets stay in rclone's own configuration, of which the command line has the path. Messages lose user names, passwords
and queries of addresses, where signatures stand.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

LOOK_S = 0.5
"""Seconds between two looks at whether a run may go on."""
END_S = 3.0
"""Seconds from SIGTERM to SIGKILL."""
STALL_S = 1800.0
"""Seconds without a byte or a file after which a run is given up; a slow store may sum a large file so long."""
QUIET_S = 60.0
"""Seconds without a byte or a file after which the status says so; rclone itself gives a silent store up after 180."""
PROBE_S = 120.0
"""As STALL_S, while it is only asked whether the store answers."""
FAILURES_MAX = 5
"""Files that fail in one run before it is given up: each costs rclone's own retries, ten seconds or more."""
DUMP_S = 30.0
"""Seconds that it may take to tell its configuration."""
LINE_MAX_BYTES = 64 * 1024
REASON_MAX = 200
"""Characters of a reason."""
DIRECTORY_NOT_FOUND = 3
"""rclone's exit code where the folder is not there yet; the store has answered."""
UNCHECKED = "hashes could not be checked"
"""What `rclone check` says where it compared no more than sizes."""

_FLAGS = (
    *("--no-traverse", "--transfers=2", "--checkers=2", "--buffer-size=4M", "--ask-password=false"),
    *("--retries=1", "--low-level-retries=3", "--contimeout=15s", "--timeout=60s"),
    *("--use-json-log", "--stats=1s", "--stats-log-level=NOTICE"),
)
_USER = re.compile(r"(\w://)[^\s/@\"']*@")
_QUERY = re.compile(r"(\w://[^\s?\"']*)\?[^\s\"']*")


class RunStats(Struct, frozen=True):
    """The progress of a run."""

    done_bytes: int = 0
    total_bytes: int = 0
    bytes_s: float = 0.0
    """The present speed."""
    file: str = ""
    """A file that is being sent."""
    is_quiet: bool = False
    """True while nothing has been sent for QUIET_S."""

    @property
    def percent(self) -> int:
        """The part that is done; 0 while the total is unknown."""
        return min(100, 100 * self.done_bytes // self.total_bytes) if self.total_bytes > 0 else 0


class RunResult(Struct, frozen=True):
    """The end of a run."""

    code: int
    """Its exit code; negative: the signal that ended it."""
    reason: str
    """What went wrong, without secrets; empty: nothing."""
    lines: tuple[str, ...] = ()
    """The standard output of `check`; others say nothing there that is wanted."""
    is_interrupted: bool = False
    """True if it was ended because it may not go on now."""
    is_unchecked: bool = False
    """True if `check` could not compare the checksums of all files."""

    @property
    def has_answered(self) -> bool:
        """True if the store said whether the folder is there."""
        return self.code in {0, DIRECTORY_NOT_FOUND}


class Rclone(Struct, frozen=True):
    """rclone with one configuration."""

    config: Path | None
    """The path of its configuration; None: its own place."""
    max_kb_s: int = 0
    may_go_on: Callable[[], bool] = lambda: True
    """Asked twice a second; a run is ended when it says no."""
    on_stats: Callable[[RunStats], None] = lambda _stats: None

    def copy(self, source: Path, target: str, files: Sequence[str], *, anew: bool = False) -> RunResult:
        """Copies files below `source` (paths relative to it) to the same places below `target`.

        What is there with the same checksum is not sent again, unless `anew`.
        """
        return self._run("copy", files, "--ignore-times" if anew else "--checksum", "--", str(source), target)

    def verify(self, source: Path, target: str, files: Sequence[str]) -> RunResult:
        """Compares the checksums of the copies; where a store has none, by reading the copies back."""
        words = ("--one-way", "--combined=-")
        result = self._run("check", files, *words, "--", str(source), target)
        if result.is_unchecked:
            result = self._run("check", files, *words, "--download", "--", str(source), target)
        return result

    def probe(self, target: str) -> RunResult:
        """Asks whether the store answers. What is there is not read, however much it is."""
        return self._run("lsf", (), "--max-depth=1", "--", target, stall_s=PROBE_S)

    def read_sections(self) -> dict[str, dict[str, str]]:
        """Returns the options of each remote in its configuration. Raises: OSError with a reason."""
        argv = ["rclone", "config", "dump", "--ask-password=false", *self._config_flags]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=DUMP_S, check=False)
            dumped = json.loads(done.stdout) if done.returncode == 0 else None
        except OSError as error:
            raise OSError(_to_missing(error)) from None
        except (subprocess.TimeoutExpired, ValueError, RecursionError):
            raise OSError("rclone cannot tell its configuration") from None
        if not isinstance(dumped, dict):
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise OSError(to_reason(said[-1]) if said else f"rclone ended with {done.returncode}")
        return {name: section for name, section in dumped.items() if isinstance(section, dict)}

    @property
    def _config_flags(self) -> list[str]:
        return [f"--config={self.config}"] if self.config else []

    def _run(self, word: str, files: Sequence[str], *words: str, stall_s: float = STALL_S) -> RunResult:
        argv = ["rclone", word, *_FLAGS, *(("--files-from-raw=-",) if files else ())]
        argv += self._config_flags
        argv += [f"--bwlimit={self.max_kb_s * 1000}B"] if self.max_kb_s else []
        if shutil.which("setpriv"):  # a process that was killed leaves none behind
            argv = ["setpriv", "--pdeathsig=KILL", "--", *argv]
        with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as out:
            names.write("\n".join([*files, ""]).encode())
            names.seek(0)
            try:
                with _open_child([*argv, *words], names, out if word == "check" else subprocess.DEVNULL) as child:
                    said = self._follow(child, stall_s)
            except OSError as error:
                return RunResult(127, _to_missing(error))
            self.on_stats(RunStats())
            out.seek(0)
            lines = tuple(out.read().decode(errors="replace").splitlines())
        reason = "" if child.returncode == 0 else said.reason or f"rclone ended with {child.returncode}"
        return RunResult(child.returncode, reason, lines, said.is_interrupted, said.is_unchecked)

    def _follow(self, child: subprocess.Popen[bytes], stall_s: float) -> _Said:
        """Reads what rclone says until it ends, or may not go on."""
        assert child.stderr is not None  # noqa: S101 - a pipe, see _open_child
        said, pipe, rest = _Said(), child.stderr.fileno(), b""
        moved_s, before, latest = time.monotonic(), (0, 0), RunStats()
        while True:
            if select.select([pipe], [], [], LOOK_S)[0]:
                if not (piece := os.read(pipe, LINE_MAX_BYTES)):
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(END_S)
                    return said
                *lines, rest = (rest + piece).split(b"\n")
                rest = rest[-LINE_MAX_BYTES:]
                for line in lines:
                    latest = said.take(line.decode(errors="replace")) or latest
            if said.progress != before:
                moved_s, before = time.monotonic(), said.progress
            self.on_stats(replace(latest, is_quiet=time.monotonic() - moved_s > QUIET_S))
            if time.monotonic() - moved_s > stall_s:
                said.reason = f"nothing was sent for {stall_s:.0f} s"
                return said
            if said.failures >= FAILURES_MAX:
                return said
            if not self.may_go_on():
                said.is_interrupted = True
                return said


@contextmanager
def _open_child(argv: Sequence[str], names: Any, out: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Starts rclone; at the end of the block it has ended, too. Raises: OSError."""
    with subprocess.Popen(argv, stdin=names, stdout=out, stderr=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            try:
                child.terminate()
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()


@dataclass(slots=True)
class _Said:
    """What a run has said so far."""

    reason: str = ""
    failures: int = 0
    """Files that failed."""
    progress: tuple[int, int] = (0, 0)
    is_interrupted: bool = False
    is_unchecked: bool = False

    def take(self, line: str) -> RunStats | None:
        """Takes a line of its log. Returns: the progress, if the line tells it."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):  # the last words are plain text: "Failed to create file system for …"
            self.reason = self.reason or to_reason(line)
            return None
        message = str(record.get("msg", ""))
        self.is_unchecked = self.is_unchecked or UNCHECKED in message
        if record.get("level") in {"error", "critical", "fatal"}:
            self.reason = self.reason or to_reason(message)
            self.failures += "Failed to copy" in message and "object" in record
        stats = record.get("stats")
        if not isinstance(stats, dict):
            return None
        self.progress = (_to_int(stats, "bytes"), _to_int(stats, "checks") + _to_int(stats, "transfers"))
        sending = stats.get("transferring")
        names = [one.get("name") for one in sending if isinstance(one, dict)] if isinstance(sending, list) else []
        speed = _to_int(stats, "speed")
        return RunStats(self.progress[0], _to_int(stats, "totalBytes"), speed, str(next(iter(names), "")))


def _to_missing(error: OSError) -> str:
    return f"rclone cannot be run: {error.strerror or error}"


def _to_int(values: dict[str, Any], key: str) -> int:
    value = values.get(key)
    return int(value) if isinstance(value, int | float) else 0


def to_reason(message: str) -> str:
    """Returns a message of rclone in one short line, without what an address carries of secrets."""
    text = re.sub(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ", "", " ".join(message.split()))
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text))[:REASON_MAX]


def find_verified(lines: Sequence[str]) -> set[str]:
    """Returns the files that `check --combined` says are equal at both places."""
    return {line[2:] for line in lines if line.startswith("= ")}
