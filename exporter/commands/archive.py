"""Answers `archive` and `archives`. All but the list runs as a file job: copying may take an hour."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

import tomlkit

from exporter import replies
from shmcam.config.masking import mask_secrets
from shmcam.config.settings import Settings
from shmcam.control.messages import Archive, Archives, ArchiveSaved, Event, Progressed, Reply
from shmcam.library import Catalogue, archive, manifest, retention
from shmcam.library.entry import to_line, to_row
from shmcam.library.errors import NoSuchEntry
from shmcam.library.sidecar import MANIFEST
from shmcam.library.time_parsing import parse_instant_ns
from shmcam.runtime.progress import Progress

PROGRESS_S = 1.0
"""Seconds between two Progressed events."""
FINDINGS_SHOWN = 50


def build_archive(
    command: Archive, settings: Settings, catalogue: Catalogue, announce: Callable[[Event], None], now_utc_ns: int
) -> Reply:
    """Collects clips and pictures of a span. Raises: ValueError, OSError."""
    since, until = (parse_instant_ns(instant, now_utc_ns) for instant in (command.since, command.until))
    span = manifest.Span(since, until, tuple(command.cameras), command.label, command.session)
    archives = settings.paths.archives

    def make_room(need_bytes: int, spared: Collection[Path]) -> None:
        retention.make_room(settings, catalogue, need_bytes, archives, kind="archive", writing=spared)

    make_room(0, ())
    entry = archive.build(
        catalogue,
        archives,
        command.name,
        span,
        config=format_config(settings),
        progress=_announce_progress(f"archive {command.name}", announce),
        room=make_room,
        now_utc_ns=now_utc_ns,
    )
    files = len(manifest.read_items(entry.path.parent))
    announce(ArchiveSaved(name=command.name, path=str(entry.path), files=files))
    text = f"Saved archive {command.name}: {replies.format_path(entry)} (files: {files}, {entry.bytes / 1e6:.1f} MB)"
    return Reply(status="archive_saved", text=text, data={**to_row(entry), "manifest": str(entry.path), "files": files})


def list_archives(settings: Settings, catalogue: Catalogue) -> Reply:
    """Lists archives, and those that were begun. Raises: LibraryError, OSError."""
    entries = catalogue.find(kinds=["archive"])
    lines = [f"{entry.label}: {to_line(entry)}" for entry in entries]
    unfinished = archive.find_unfinished(settings.paths.archives)
    lines += [
        f"{name}: unfinished; `archive {name}` goes on, `archives delete {name}` removes it" for name in unfinished
    ]
    data = {"rows": [to_row(entry) for entry in entries], "unfinished": unfinished}
    return Reply(status="archives", text="\n".join(lines) or "no archives yet", data=data)


def verify_or_delete(
    command: Archives, settings: Settings, catalogue: Catalogue, announce: Callable[[Event], None]
) -> Reply:
    """Verifies or deletes one archive. Raises: ValueError, LibraryError, OSError."""
    folder = settings.paths.archives / archive.check_name(command.name)
    if command.action == "delete":
        entries = catalogue.find(kinds=["archive"])
        entry = next((entry for entry in entries if entry.path.parent == folder), None)
        if entry is None and command.name in archive.find_unfinished(settings.paths.archives):
            archive.discard(folder, catalogue.folders)
            return Reply(status="deleted", text=f"OK: deleted unfinished archive {command.name}")
        if entry is None:
            raise NoSuchEntry(f"no archive {command.name}")
        catalogue.delete(entry.id)
        return Reply(status="deleted", text=f"OK: deleted archive {command.name}", data=to_row(entry))
    findings = manifest.verify(folder, _announce_progress(f"verify {command.name}", announce))
    text = "\n".join(findings[:FINDINGS_SHOWN]) or f"OK: {folder / MANIFEST} and all its files agree"
    return Reply(ok=not findings, status="archives", text=text, data={"findings": findings[:FINDINGS_SHOWN]})


def format_config(settings: Settings) -> str:
    """Returns the configuration as TOML with secrets masked, for the archive of what was recorded with it."""
    return tomlkit.dumps(mask_secrets(settings.document))


def _announce_progress(task: str, announce: Callable[[Event], None]) -> Progress:
    announced_s = 0.0

    def announce_progress(done: int, total: int) -> None:
        nonlocal announced_s
        if time.monotonic() - announced_s >= PROGRESS_S or done == total:
            announced_s = time.monotonic()
            announce(Progressed(task=task, done=done, total=total))

    return announce_progress
