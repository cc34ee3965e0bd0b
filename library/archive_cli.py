"""`shmcam archive verify …`: compares archives with their manifests, also while the service is down."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from library import manifest
from library.archive import checked_name
from library.catalogue import Catalogue
from library.cli import EXIT_FOUND, parser_of, run, say
from library.progress import progress_bar
from library.sidecar import MANIFEST


def main(argv: Sequence[str] | None = None) -> int:
    """Run `shmcam archive verify NAME`; returns as `library.cli.main` does."""
    parser = parser_of("shmcam archive")
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    one = words.add_parser("verify", help="compare archives with the SHA-256 sums of their manifests")
    one.add_argument("names", nargs="*", help="archives (default: all)")
    one.set_defaults(work=verify)
    return run(parser.parse_args(argv))


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


if __name__ == "__main__":
    sys.exit(main())
