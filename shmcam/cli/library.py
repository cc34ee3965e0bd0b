"""`shmcam library …` and `shmcam archive verify …`: work on the files directly, also while the service is down."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError
from shmcam.library import manifest
from shmcam.library.archive import checked_name
from shmcam.library.catalogue import Catalogue
from shmcam.library.entry import Entry, line, row, show
from shmcam.library.errors import LibraryError
from shmcam.library.instants import instant_ns
from shmcam.library.sidecar import MANIFEST
from shmcam.runtime.clock import now_ns, to_utc_ns
from shmcam.runtime.progress import progress_bar
from shmcam.runtime.startup import default_config

EXIT_FOUND = 1
"""check and verify: something is wrong. Other commands: refused."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of `shmcam library`. Returns: 0, 1 where something is wrong or refused, 78 for a bad config."""
    return run(_library_options(argv))


def archive_main(argv: Sequence[str] | None = None) -> int:
    """Run `shmcam archive verify NAME`; returns as `main` does."""
    parser = parser_of("shmcam archive")
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    one = words.add_parser("verify", help="compare archives with the SHA-256 sums of their manifests")
    one.add_argument("names", nargs="*", help="archives (default: all)")
    one.set_defaults(work=verify)
    return run(parser.parse_args(argv))


def listed(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Print rows, newest first."""
    now = to_utc_ns(now_ns())
    entries = catalogue.find(
        kinds=options.kind,
        cameras=options.camera,
        since_utc_ns=instant_ns(options.since, now),
        until_utc_ns=instant_ns(options.until, now),
        protected=True if options.protected else None,
        limit=options.limit,
    )
    say(options, [row(entry) for entry in entries], "\n".join(line(entry) for entry in entries) or "nothing saved yet")
    return 0


def shown(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Print all of one row."""
    entry = catalogue.get(options.numbers[0])
    say(options, row(entry), show(entry))
    return 0


def protected(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Protect entries, or give them back."""
    return _each(options, lambda number: catalogue.protect(number, options.protect))


def deleted(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Delete entries."""
    return _each(options, catalogue.delete)


def check(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Compare the library with the disk."""
    findings = catalogue.check(mend=options.mend)
    rows = [{**row(entry), "finding": how} for entry, how in findings]
    mended = " (mended)" if options.mend and findings else ""
    text = "\n".join(f"{how}: {entry.path}{mended}" for entry, how in findings)
    say(options, rows, text or f"{len(catalogue.find())} rows, each with its file")
    return EXIT_FOUND if findings and not options.mend else 0


def rebuild(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Make every row anew from the files."""
    count, kept = catalogue.rebuild(accept=options.accept)
    text = f"rebuilt {count} rows from the files below {', '.join(map(str, catalogue.folders))}"
    away = [str(folder) for folder in catalogue.away]
    say(options, {"rows": count, "kept": kept, "away": away}, text + catalogue.kept_text(kept))
    return 0


def verify(options: argparse.Namespace, _catalogue: Catalogue) -> int:
    """Compare archives with their manifests."""
    archives: Path = options.settings.paths.archives
    found: dict[str, list[str]] = {}
    for name in options.names or sorted(path.parent.name for path in archives.glob(f"*/{MANIFEST}")):
        bar = progress_bar(name) if sys.stderr.isatty() and not options.json else lambda _done, _total: None
        found[name] = manifest.verify(archives / checked_name(name), bar)
    lines = [f"{name}: {finding}" for name, findings in found.items() for finding in findings or ["ok"]]
    say(options, found, "\n".join(lines) or "no archives yet")
    return EXIT_FOUND if any(found.values()) else 0


def run(options: argparse.Namespace) -> int:
    """Do what was read from the command line, and turn what is refused into a line and an exit code."""
    try:
        options.settings = Settings.load(options.config, options.set)
    except SettingsError as error:
        print(f"{error}", file=sys.stderr)
        return EXIT_CONFIG
    lost = not options.settings.paths.library.exists()
    try:
        with Catalogue.of(options.settings) as catalogue:
            if lost:
                catalogue.reconcile()
            work: Callable[[argparse.Namespace, Catalogue], int] = options.work
            return work(options, catalogue)
    except (LibraryError, ValueError, OSError, sqlite3.Error) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_FOUND


def _each(options: argparse.Namespace, work: Callable[[int], Entry]) -> int:
    for number in options.numbers:
        entry = work(number)
        say(options, row(entry), line(entry))
    return 0


def say(options: argparse.Namespace, data: object, text: str) -> None:
    """Print for people or for programs."""
    print(json.dumps(data) if options.json else text)


def parser_of(name: str) -> argparse.ArgumentParser:
    """The options that every command here has."""
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--config", type=Path, default=default_config(), help="config.toml (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="override one key")
    parser.add_argument("--json", action="store_true", help="answer for programs")
    return parser


def _library_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("shmcam library")
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    one = words.add_parser("list", help="what has been saved, newest first")
    one.add_argument("--kind", action="append", default=[], help="picture, stack, clip, timelapse … (repeatable)")
    one.add_argument("--camera", action="append", default=[], help="camera (repeatable)")
    one.add_argument("--since", "--from", default="", help="ISO 8601 time or an age such as 2h")
    one.add_argument("--until", "--to", default="", help="the same")
    one.add_argument("--protected", action="store_true", help="only protected ones")
    one.add_argument("--limit", type=int, default=50, help="rows; -1: all (default: %(default)s)")
    one.set_defaults(work=listed)
    for word, work, text in (
        ("show", shown, "all about one entry"),
        ("protect", protected, "never delete these by retention"),
        ("unprotect", protected, "give these back to retention"),
        ("delete", deleted, "delete files and rows"),
    ):
        one = words.add_parser(word, help=text)
        one.add_argument("numbers", type=int, nargs=1 if word == "show" else "+", help="numbers as listed")
        one.set_defaults(work=work, protect=word == "protect")
    one = words.add_parser("check", help="compare every row with its file and every file with its row")
    one.add_argument("--mend", action="store_true", help="make the rows follow the files")
    one.set_defaults(work=check)
    one = words.add_parser("rebuild", help="make all rows anew from the files")
    one.add_argument(
        "--accept", action="store_true", help="folders that are empty or without their disk stay so: forget"
    )
    one.set_defaults(work=rebuild)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
