"""Answers clips, pictures, library, protect, unprotect and delete, and reconciles the library with its files.

The commands are quick: nothing is copied. Reconcile, check and rebuild read the disk and run as file jobs: on start,
when a folder or the database comes back, and by command.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from exporter import replies
from shmcam.config.settings import Settings
from shmcam.control.messages import Clips, Command, Delete, Library, Pictures, Protect, Reply, Unprotect
from shmcam.library import Catalogue, Entry, LibraryError, NoRoom
from shmcam.library.database import explain_not_writable
from shmcam.library.disks.disk_space import MB
from shmcam.library.entry import GROUPS, to_line, to_row, to_text
from shmcam.library.files import find_files, remove_leftovers
from shmcam.library.query import Query, find_next_cursor
from shmcam.library.retention import make_room
from shmcam.library.time_parsing import parse_instant_ns
from shmcam.library.timeline import TimelineSpan, to_lines

log = logging.getLogger(__name__)

CLIP_KINDS = tuple(kind for kind, group in GROUPS.items() if group == "clips")
NO_PICTURES = (*CLIP_KINDS, "archive")
FINDINGS_SHOWN = 100
"""The most findings in one reply; `shmcam library check` on the files shows all."""
TIMELINE_CELLS_SHOWN = 500
"""The most cells in one reply: with EVENTS_MAX events they fit a message of the control socket."""


def answer_command(command: Command, catalogue: Catalogue, now_utc_ns: int) -> Reply:
    """Carries out one of the quick commands. Raises: ValueError (the caller's fault), OSError."""
    try:
        match command:
            case Clips():
                reply = reply_page("clips", make_query(command, now_utc_ns, CLIP_KINDS), catalogue)
            case Pictures(kind=kind):
                query = make_query(command, now_utc_ns, (kind,) if kind else ())
                reply = reply_page("pictures", query if kind else replace(query, other_than=NO_PICTURES), catalogue)
            case Library(action="show", number=number):
                entry = catalogue.get(number)
                reply = Reply(status="library", text=to_text(entry), data=to_row(entry))
            case Library(action="timeline"):
                reply = reply_timeline(command, catalogue, now_utc_ns)
            case Library(kind=kind):
                query = replace(
                    make_query(command, now_utc_ns, (kind,) if kind else ()),
                    text=command.text,
                    group=command.group,
                    label=command.label or None,
                    trigger=command.trigger or None,
                    min_bytes=round(command.min_mb * MB),
                    max_bytes=round(command.max_mb * MB) if command.max_mb else None,
                    order=command.order,
                )
                reply = reply_page("library", query, catalogue)
            case Protect(number=number):
                reply = reply_change("protected", catalogue.protect(number))
            case Unprotect(number=number):
                reply = reply_change("unprotected", catalogue.protect(number, False))
            case Delete(number=number):
                reply = reply_change("deleted", catalogue.delete(number))
            case _:
                raise AssertionError(f"not a library command: {command}")
    except LibraryError as problem:
        return replies.reply_refused(problem)
    return reply


def make_query(command: Clips | Pictures | Library, now_utc_ns: int, kinds: Sequence[str]) -> Query:
    """Returns the search that the three commands share. Raises: ValueError."""
    return Query(
        kinds=kinds,
        cameras=[command.camera] if command.camera else [],
        since_utc_ns=parse_instant_ns(command.since, now_utc_ns),
        until_utc_ns=parse_instant_ns(command.until, now_utc_ns),
        cursor=command.cursor,
        limit=command.limit,
    )


def reply_page(what: str, query: Query, catalogue: Catalogue) -> Reply:
    """Returns a reply with one page of rows; `what` is its status. Raises: ValueError."""
    entries = catalogue.search(query)
    following = find_next_cursor(query, entries)
    missing = "entries" if what == "library" else what
    lines = [to_line(entry) for entry in entries] or [f"no more {missing}" if query.cursor else f"no {missing} yet"]
    more = [f"more: cursor={following}"] if following else []
    rows = [to_row(entry) for entry in entries]
    return Reply(status=what, text="\n".join([*lines, *more]), data={"rows": rows, "next": following})


def reply_timeline(command: Library, catalogue: Catalogue, now_utc_ns: int) -> Reply:
    """Returns a reply with the timeline; one that is too long for a message is refused. Raises: ValueError."""
    since = parse_instant_ns(command.since, now_utc_ns)
    span = TimelineSpan.of(since, parse_instant_ns(command.until, now_utc_ns), command.step_s, now_utc_ns)
    timeline = catalogue.read_timeline(span, [command.camera] if command.camera else [])
    if (count := sum(len(camera.cells) for camera in timeline.cameras)) > TIMELINE_CELLS_SHOWN:
        raise ValueError(
            f"the timeline has {count} cells that hold something, one reply {TIMELINE_CELLS_SHOWN}: take a larger "
            "step_s, a shorter span or one camera (GET /api/v1/library/timeline has no such limit)"
        )
    text = "\n".join(to_lines(timeline)) or "nothing in this span"
    return Reply(status="library", text=text, data=msgspec.to_builtins(timeline))


def reply_change(what: str, entry: Entry) -> Reply:
    """Returns a reply with the changed row; `what` is its status."""
    return Reply(status=what, text=f"OK: {what} {entry.id} {entry.path}", data=to_row(entry))


def reconcile(catalogue: Catalogue) -> Reply:
    """Gives rows to files that a crash left without, and removes leftovers; on start, and when rows may be missing."""
    catalogue.missed.clear()  # before the search, which may be too early for a file that is saved meanwhile
    try:
        adopted, gone = catalogue.reconcile()
    except BaseException:
        catalogue.missed.set()  # the next check of the disks tries again
        raise
    leftovers = remove_leftovers(catalogue.folders, catalogue.owner)
    for folder in catalogue.away:
        if catalogue.mounts.is_away(folder):
            log.warning("library folder without its disk, rows kept and nothing written folder=%s", folder)
    log.info("library reconciled adopted=%d gone=%d leftovers=%d", len(adopted), len(gone), len(leftovers))
    return Reply(data={"adopted": len(adopted), "gone": len(gone)})


def reconcile_if_needed(catalogue: Catalogue) -> Reply:
    """Reconciles where rows may be missing, once the library can be written, or where a folder that was away is back.

    Files of a folder that was away are there again when its disk is mounted late.
    """
    if catalogue.missed.is_set() or catalogue.is_replaced():
        if not explain_not_writable(catalogue.path):
            log.info("library may lack rows path=%s", catalogue.path)
            return reconcile(catalogue)
    elif folders := [one for one in catalogue.away if not catalogue.mounts.is_away(one) and find_files(one)]:
        log.info("library folder has files folders=%s", ",".join(map(str, folders)))
        return reconcile(catalogue)
    return Reply(data={"adopted": 0, "gone": 0})


def make_room_again(catalogue: Catalogue, settings: Settings) -> Reply:
    """Tries once more to make room where that was not possible: the trouble ends with its cause."""
    with suppress(NoRoom):
        make_room(settings, catalogue, 0)
    return Reply(data={"trouble": catalogue.trouble})


def check_or_rebuild(catalogue: Catalogue, action: str) -> Reply:
    """Compares the library with the disk, or rebuilds it from the files."""
    if action == "rebuild":
        count, kept = catalogue.rebuild()
        text = f"OK: rebuilt {count} rows from the files{catalogue.describe_kept(kept)}"
        return Reply(status="library", text=text, data={"rows": count, "kept": kept})
    findings = catalogue.check()
    rows = [{**to_row(entry), "finding": how} for entry, how in findings[:FINDINGS_SHOWN]]
    text = "\n".join(f"{how}: {entry.path}" for entry, how in findings[:FINDINGS_SHOWN]) or "OK: every row has its file"
    return Reply(ok=not findings, status="library", text=text, data={"findings": rows, "count": len(findings)})
