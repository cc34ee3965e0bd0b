"""`shmcam library …` and `shmcam archive verify …`, carried out on the files, also while the service is down."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from shmcam.cli.options import whole_number
from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError
from shmcam.library import manifest, retention
from shmcam.library.archive import check_name
from shmcam.library.catalogue import Catalogue
from shmcam.library.disks.disk_space import MB
from shmcam.library.entry import GROUPS, Entry, to_line, to_row, to_text
from shmcam.library.errors import LibraryError
from shmcam.library.query import ORDERS, Query, find_next_cursor
from shmcam.library.sidecar import MANIFEST
from shmcam.library.time_parsing import parse_instant_ns
from shmcam.library.timeline import DAY_S, TimelineSpan, to_lines
from shmcam.runtime.clock import now_ns, to_utc_ns
from shmcam.runtime.progress import make_progress_bar
from shmcam.runtime.startup import end_with_error, find_config

EXIT_FOUND = 1
"""check and verify: something is wrong. Other commands: refused."""

DESCRIPTION = (
    "`shmcam library …` and `shmcam archive verify …`: work on the files directly, also while the service is down."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command of `shmcam library`; returns the exit code."""
    return run_command(build_parser().parse_args(argv))


def archive_main(argv: Sequence[str] | None = None) -> int:
    """Runs `shmcam archive verify NAME`; returns as `main` does."""
    parser = _build_shared("shmcam archive")
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    command = words.add_parser("verify", help="compare archives with the SHA-256 sums of their manifests")
    command.add_argument("names", nargs="*", metavar="NAME", help="archives (default: all)")
    command.set_defaults(work=verify_archives)
    _add_shared(command)
    return run_command(parser.parse_args(argv))


def list_entries(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Prints one page of rows; the mark of the next page goes to stderr."""
    now = to_utc_ns(now_ns())
    catalogue.check_cameras(options.camera, options.settings.cameras)
    query = Query(
        text=" ".join(options.words),
        group=options.group,
        kinds=options.kind,
        cameras=options.camera,
        label=options.label,
        trigger=options.trigger,
        since_utc_ns=parse_instant_ns(options.since, now),
        until_utc_ns=parse_instant_ns(options.until, now),
        min_bytes=round(options.min_mb * MB),
        max_bytes=None if options.max_mb is None else round(options.max_mb * MB),
        protected=True if options.protected else None,
        order=options.order,
        cursor=options.cursor,
        limit=options.limit,
    )
    entries = catalogue.search(query)
    text = "\n".join(to_line(entry) for entry in entries)
    print_answer(options, [to_row(entry) for entry in entries], text or "nothing found")
    if following := find_next_cursor(query, entries):
        print(f"more: --cursor {following}", file=sys.stderr)
    return 0


def show_timeline(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Prints what exists of each camera in each step of a span."""
    now = to_utc_ns(now_ns())
    catalogue.check_cameras(options.camera, options.settings.cameras)
    since, until = parse_instant_ns(options.since, now), parse_instant_ns(options.until, now)
    timeline = catalogue.read_timeline(TimelineSpan.of(since, until, options.step, now), options.camera)
    print_answer(options, msgspec.to_builtins(timeline), "\n".join(to_lines(timeline)) or "nothing in this span")
    return 0


def show_entry(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Prints all of one row."""
    entry = catalogue.get(options.numbers[0])
    print_answer(options, to_row(entry), to_text(entry))
    return 0


def protect_entries(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Protects entries from retention, or gives them back to it."""
    return _change_entries(options, lambda number: catalogue.protect(number, options.protect))


def delete_entries(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Deletes entries."""
    return _change_entries(options, catalogue.delete)


def clean_library(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Applies the limits of [library] now, or says what that would delete."""
    work = retention.select_to_clean if options.dry_run else retention.clean
    entries = work(options.settings, catalogue)
    word = "would delete" if options.dry_run else "deleted"
    size = sum(entry.bytes for entry in entries)
    lines = [f"{word}: {to_line(entry)}" for entry in entries]
    lines.append(f"{word} {len(entries)} files, {size / 1e6:.1f} MB")
    print_answer(options, {"files": [to_row(entry) for entry in entries], "bytes": size}, "\n".join(lines))
    return 0


def check_library(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Compares the library with the disk."""
    findings = catalogue.check(mend=options.mend)
    rows = [{**to_row(entry), "finding": how} for entry, how in findings]
    mended = " (mended)" if options.mend and findings else ""
    text = "\n".join(f"{how}: {entry.path}{mended}" for entry, how in findings)
    print_answer(options, rows, text or f"{catalogue.sum_search(Query())[0]} rows, each with its file")
    return EXIT_FOUND if findings and not options.mend else 0


def rebuild_library(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Makes every row anew from the files."""
    count, kept = catalogue.rebuild(accept=options.accept)
    text = f"rebuilt {count} rows from the files below {', '.join(map(str, catalogue.folders))}"
    away = [str(folder) for folder in catalogue.away]
    print_answer(options, {"rows": count, "kept": kept, "away": away}, text + catalogue.describe_kept(kept))
    return 0


def verify_archives(options: argparse.Namespace, _catalogue: Catalogue) -> int:
    """Compares archives with their manifests."""
    archives: Path = options.settings.paths.archives
    results: dict[str, list[str]] = {}
    for name in options.names or sorted(path.parent.name for path in archives.glob(f"*/{MANIFEST}")):
        bar = make_progress_bar(name) if sys.stderr.isatty() and not options.json else lambda _done, _total: None
        results[name] = manifest.verify(archives / check_name(name), bar)
    lines = [f"{name}: {finding}" for name, findings in results.items() for finding in findings or ["ok"]]
    print_answer(options, results, "\n".join(lines) or "no archives yet")
    return EXIT_FOUND if any(results.values()) else 0


def run_command(options: argparse.Namespace) -> int:
    """Carries out one command; a refusal becomes a line on stderr and an exit code."""
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
    except (LibraryError, ValueError) as error:
        return end_with_error(error)


def _change_entries(options: argparse.Namespace, work: Callable[[int], Entry]) -> int:
    for number in options.numbers:
        entry = work(number)
        print_answer(options, to_row(entry), to_line(entry))
    return 0


def print_answer(options: argparse.Namespace, data: object, text: str) -> None:
    """Prints the text, or with --json the data."""
    print(json.dumps(data) if options.json else text)


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of what stands behind `shmcam library`."""
    parser = _build_shared("shmcam library")
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    command = words.add_parser("list", help="what has been saved, newest first")
    command.add_argument("words", nargs="*", metavar="WORD", help="words in kind, camera, trigger, label or file name")
    command.add_argument("--group", choices=sorted({"pictures", *GROUPS.values()}), default="", help="group of kinds")
    command.add_argument(
        "--kind", action="append", default=[], metavar="NAME", help="picture, stack, clip, timelapse … (repeatable)"
    )
    _add_span(command)
    command.add_argument("--label", metavar="LABEL", help="the whole label")
    command.add_argument("--trigger", metavar="WORD", help="its event or command: motion, night, save …")
    command.add_argument("--min-mb", type=float, default=0.0, metavar="MB", help="least size")
    command.add_argument("--max-mb", type=float, metavar="MB", help="greatest size")
    command.add_argument("--protected", action="store_true", help="only protected ones")
    command.add_argument(
        "--order", choices=ORDERS, default="newest", help="newest, oldest: by adding; latest, earliest: by time"
    )
    command.add_argument("--cursor", default="", metavar="MARK", help="the page after this mark")
    command.add_argument(
        "--limit", type=whole_number, default=50, metavar="ROWS", help="rows; -1: all (default: %(default)s)"
    )
    command.set_defaults(work=list_entries)
    command = words.add_parser("timeline", help="what exists of each camera in each step of time")
    _add_span(command)
    command.add_argument(
        "--step", type=_parse_step, default=3600, metavar="SECONDS", help="length of a step (default: %(default)s)"
    )
    command.set_defaults(work=show_timeline)
    for word, work, text in (
        ("show", show_entry, "all about one entry"),
        ("protect", protect_entries, "never delete these by retention"),
        ("unprotect", protect_entries, "give these back to retention"),
        ("delete", delete_entries, "delete files and rows"),
    ):
        command = words.add_parser(word, help=text)
        count = 1 if word == "show" else "+"
        command.add_argument("numbers", type=whole_number, nargs=count, metavar="NUMBER", help="numbers as listed")
        command.set_defaults(work=work, protect=word == "protect")
    command = words.add_parser("clean", help="delete now what the limits of [library] say")
    command.add_argument("--dry-run", action="store_true", help="only say what that would be")
    command.set_defaults(work=clean_library)
    command = words.add_parser("check", help="compare every row with its file and every file with its row")
    command.add_argument("--mend", action="store_true", help="make the rows follow the files")
    command.set_defaults(work=check_library)
    command = words.add_parser("rebuild", help="make all rows anew from the files")
    command.add_argument(
        "--accept", action="store_true", help="folders that are empty or without their disk stay so: forget"
    )
    command.set_defaults(work=rebuild_library)
    for command in words.choices.values():
        _add_shared(command)
    return parser


def _add_span(command: argparse.ArgumentParser) -> None:
    """Adds the options of cameras and a time span."""
    command.add_argument("--camera", action="append", default=[], metavar="NAME", help="camera (repeatable)")
    command.add_argument("--since", "--from", default="", metavar="TIME", help="ISO 8601 time or an age such as 2h")
    command.add_argument("--until", "--to", default="", metavar="TIME", help="the same")


def _parse_step(text: str) -> int:
    step_s = whole_number(text)
    if not 1 <= step_s <= DAY_S:
        raise argparse.ArgumentTypeError(f"{step_s}: must be 1 to {DAY_S} s")
    return step_s


def _build_shared(program: str) -> argparse.ArgumentParser:
    """Builds a parser of the options that every command here has."""
    parser = argparse.ArgumentParser(prog=program, description=DESCRIPTION)
    _add_shared(parser)
    parser.set_defaults(config=find_config(), set=[], json=False)
    return parser


def _add_shared(parser: argparse.ArgumentParser) -> None:
    """Adds those options; without defaults, as they may stand before or behind the word."""
    parser.add_argument(
        "--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help=f"config.toml (default: {find_config()})"
    )
    parser.add_argument(
        "--set", action="append", default=argparse.SUPPRESS, metavar="TABLE.KEY=VALUE", help="override one key"
    )
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer for programs")


if __name__ == "__main__":
    sys.exit(main())
