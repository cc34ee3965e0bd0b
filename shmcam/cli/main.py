"""`shmcam`: runs one word of the command line.

    shmcam save jpg png            any command of the control socket (shmcam help lists them)
    shmcam run | console | doctor  what the command line carries out itself (`LOCAL` in shmcam/cli/local_commands.py)
    shmcam restart recorder        supervisorctl, with the right configuration

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 69 no service there; 75 no answer in time; 78 config.toml is
wrong; 130 interrupted.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from shmcam.cli.local_commands import ELSEWHERE, LOCAL, SUPERVISOR, help_of
from shmcam.cli.options import EXIT_FAILED, Options, UsageError, WordParser, read
from shmcam.config.settings import EXIT_USAGE
from shmcam.runtime.non_utf8_escapes import ESCAPE

EXIT_INTERRUPTED = 130

NESTED = "SHMCAM_JSON_NESTED"
"""Set in the environment of a word whose output becomes JSON: it answers as it does without that."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; returns the exit code."""
    if sys.getfilesystemencoding() != "utf-8":  # a path from config.toml, which is UTF-8, would name another file
        arguments = [sys.executable, "-X", "utf8", "-m", "shmcam.cli.main", *(sys.argv[1:] if argv is None else argv)]
        os.execve(sys.executable, arguments, {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606 - argv list, no shell
    for name in ("stdin", "stdout", "stderr"):  # one that the caller closed is None, and the next file gets its number
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115 - open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE)  # or a locale without "…" ends it with an exception
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = read(words)
        if options.version:
            return _print_version(options)
        if options.json and NESTED not in os.environ and not answers_in_json(options):
            return _run_as_json(words, options.word)
        code = _dispatch(options)
        print(end="", flush=True)  # what stdout does not take is told here, not by Python at its end
        return code
    except UsageError as problem:
        _tell("bad_arguments", str(problem), as_json="--json" in words)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as problem:  # of a file or folder that was named, or of stdout: `shmcam logs -f | head`
        is_reader_gone = isinstance(problem, BrokenPipeError)
        with suppress(OSError):
            if not is_reader_gone:
                place = f"{problem.filename}: " if problem.filename else ""
                _tell("failed", f"{place}{problem.strerror or problem}", as_json="--json" in words)
            print(end="", flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes stdout at its end
        return 0 if is_reader_gone else EXIT_FAILED


def _tell(status: str, text: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"ok": False, "status": status, "data": {"message": text}}))
    else:
        print(f"shmcam: {text}", file=sys.stderr)


def answers_in_json(options: Options) -> bool:
    """Returns whether the code behind a word itself answers in JSON, or does not answer at all (`run`)."""
    if options.help or find_program_on_files(options):
        return False
    if options.word == "processes":
        return True
    follows = options.word == "logs" and any(word in {"-f", "--follow"} for word in options.rest)
    return follows or options.word not in {*SUPERVISOR, "logs", "completion", "dump-ring"}


def _print_version(options: Options) -> int:
    found = version("shmcam")
    data = {"ok": True, "status": "version", "data": {"shmcam": found}}
    print(json.dumps(data) if options.json else f"shmcam {found}")
    return 0


def _run_as_json(words: Sequence[str], word: str) -> int:
    """Runs a word that prints text, or JSON only when all goes well, and puts what it printed into one JSON object."""
    program = word in {"library", "fleet", "archive", "timelapse"}  # these have a JSON of their own
    rest = [one for one in words if program or one != "--json"]
    command = [sys.executable, "-m", "shmcam.cli.main", *rest]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, NESTED: "1"}, check=False)
    try:
        json.loads(done.stdout)
        print(done.stdout, end="")
    except ValueError:
        message = (done.stderr.strip() or done.stdout.strip()).removeprefix("ERROR: ").removeprefix("shmcam: ")
        data = {"lines": done.stdout.splitlines()} if done.returncode == 0 else {"message": message}
        status = "done" if done.returncode == 0 else "failed"
        print(json.dumps({"ok": done.returncode == 0, "status": status, "data": data}, indent=1, ensure_ascii=False))
    return done.returncode


def _dispatch(options: Options) -> int:
    if not options.word:
        WordParser().print_help(sys.stdout if options.help else sys.stderr)
        return 0 if options.help else EXIT_USAGE
    flags = ["--json"] * options.json + ["--help"] * options.help
    if program := find_program_on_files(options):
        os.environ["SHMCAM_CONFIG"] = str(options.config)
        rest = options.rest[1:] if options.rest[:1] == ["build"] else options.rest
        return int(_load(program)([*flags, *rest]))
    if options.help and help_of(options.word):
        WordParser(options.word).print_help()
        return 0
    if options.word in SUPERVISOR:
        from shmcam.cli.supervisorctl import run_supervisorctl

        return run_supervisorctl(options)
    if word := LOCAL.get(options.word):
        if options.rest and word.usage == options.word:
            raise UsageError(f"{options.word}: {options.rest[0]!r} is too much; usage: {word.usage}")
        return int(_load(word.module)(options))
    from shmcam.cli.send import send_command

    return send_command(options)


def find_program_on_files(options: Options) -> str:
    """Returns the program that carries this word out by itself, the service running or not.

    Returns "" if there is none: the same words over the socket ask the exporter, as `timelapse start|stop|status` does.
    """
    if options.word in ELSEWHERE:
        return ELSEWHERE[options.word].module
    if options.word == "archive" and options.rest[:1] == ["verify"]:
        return "shmcam.cli.library:archive_main"
    if options.word == "timelapse" and options.rest[:1] not in (["start"], ["stop"], ["status"]):
        return "exporter.films.build:main"
    return ""


def _load(name: str) -> Callable[..., int]:
    """Imports "module:function"."""
    module, function = name.split(":")
    program: Callable[..., int] = getattr(importlib.import_module(module), function)
    return program


if __name__ == "__main__":
    sys.exit(main())
