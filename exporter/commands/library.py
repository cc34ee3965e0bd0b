"""Answers clips, pictures, library, protect, unprotect and delete, and reconciles the library with its files.

The commands are quick: nothing is copied. Reconcile, check and rebuild read the disk and run as file jobs: on start,
when a folder or the database comes back, and by command.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from exporter import replies
from shmcam.control.messages import Clips, Command, Delete, Library, Pictures, Protect, Reply, Unprotect
from shmcam.library import Catalogue, Entry, LibraryError
from shmcam.library.database import explain_not_writable
from shmcam.library.entry import GROUPS, to_line, to_row, to_text
from shmcam.library.files import find_files, remove_leftovers
from shmcam.library.time_parsing import parse_instant_ns

log = logging.getLogger(__name__)

CLIP_KINDS = tuple(kind for kind, group in GROUPS.items() if group == "clips")
FINDINGS_SHOWN = 100
"""The most findings in one reply; `shmcam library check` on the files shows all."""


def answer_command(command: Command, catalogue: Catalogue, now_utc_ns: int) -> Reply:
    """Carries out one of the quick commands. Raises: ValueError (the caller's fault), OSError, sqlite3.Error."""
    try:
        match command:
            case Clips():
                reply = reply_rows("clips", find_rows(command, catalogue, now_utc_ns, CLIP_KINDS))
            case Pictures(kind=kind):
                reply = reply_rows("pictures", find_rows(command, catalogue, now_utc_ns, (kind,) if kind else ()))
            case Library(action="show", number=number):
                entry = catalogue.get(number)
                reply = Reply(status="library", text=to_text(entry), data=to_row(entry))
            case Library(limit=limit):
                reply = reply_rows("library", catalogue.find(limit=limit))
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


def find_rows(command: Clips | Pictures, catalogue: Catalogue, now_utc_ns: int, kinds: Sequence[str]) -> list[Entry]:
    """Returns the rows of these kinds, newest first; no kinds: every kind that is neither clip nor archive."""
    return catalogue.find(
        kinds=kinds or picture_kinds_of(catalogue),
        cameras=[command.camera] if command.camera else [],
        since_utc_ns=parse_instant_ns(command.since, now_utc_ns),
        until_utc_ns=parse_instant_ns(command.until, now_utc_ns),
        limit=command.limit,
    )


def picture_kinds_of(catalogue: Catalogue) -> list[str]:
    """Returns every kind that is neither clip nor archive; without any, one that matches nothing."""
    return [kind for kind in catalogue.find_kinds() if kind not in (*CLIP_KINDS, "archive")] or ["picture"]


def reply_rows(what: str, entries: Sequence[Entry]) -> Reply:
    """Returns a reply with rows; `what` is its status."""
    text = "\n".join(to_line(entry) for entry in entries) or f"no {what} yet"
    return Reply(status=what, text=text, data={"rows": [to_row(entry) for entry in entries]})


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
    leftovers = remove_leftovers(catalogue.folders)
    for folder in catalogue.away:
        if catalogue.mounts.is_away(folder):
            log.warning("library folder without its disk, rows kept and nothing written folder=%s", folder)
    log.info("library reconciled adopted=%d gone=%d leftovers=%d", len(adopted), len(gone), len(leftovers))
    return Reply(data={"adopted": len(adopted), "gone": len(gone)})


def reconcile_if_folder_returned(catalogue: Catalogue) -> Reply:
    """Reconciles when a folder that was away has files again, as when its disk is mounted late."""
    folders = [folder for folder in catalogue.away if not catalogue.mounts.is_away(folder) and find_files([folder])]
    if not folders:
        return Reply(data={"adopted": 0, "gone": 0})
    log.info("library folder has files folders=%s", ",".join(map(str, folders)))
    return reconcile(catalogue)


def reconcile_if_writable(catalogue: Catalogue) -> Reply:
    """Reconciles once the library can be written again; until then, files wait for their rows."""
    if explain_not_writable(catalogue.path):
        return Reply(data={"adopted": 0, "gone": 0})
    log.info("library can be written again path=%s", catalogue.path)
    return reconcile(catalogue)


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
