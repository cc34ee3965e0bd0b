"""What the library commands answer: clips, pictures, library, protect, unprotect, delete. Quick; nothing is copied.

The library and the disk agree: on start, and when somebody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from exporter import replies
from shmcam.control.messages import Clips, Command, Delete, Library, Pictures, Protect, Reply, Unprotect
from shmcam.library import Catalogue, Entry, LibraryError
from shmcam.library.database import refusal
from shmcam.library.entry import GROUPS, line, row, show
from shmcam.library.files import found, tidied
from shmcam.library.instants import instant_ns

CLIP_KINDS = tuple(kind for kind, group in GROUPS.items() if group == "clips")


def answer_command(command: Command, catalogue: Catalogue, now_utc_ns: int) -> Reply:
    """Carry out one of these commands. Raises: ValueError (the caller's fault), OSError, sqlite3.Error."""
    try:
        if isinstance(command, (Clips, Pictures)):
            return _list_rows(command, catalogue, now_utc_ns)
        return _change_rows(command, catalogue)
    except LibraryError as problem:
        return replies.reply_refused(problem)


def _list_rows(command: Clips | Pictures, catalogue: Catalogue, now_utc_ns: int) -> Reply:
    if isinstance(command, Clips):
        return reply_rows("clips", find_rows(command, catalogue, now_utc_ns, CLIP_KINDS))
    kinds = (command.kind,) if command.kind else ()
    return reply_rows("pictures", find_rows(command, catalogue, now_utc_ns, kinds))


def _change_rows(command: Command, catalogue: Catalogue) -> Reply:
    match command:
        case Library(action="show", number=number):
            reply = reply_row(catalogue.get(number))
        case Library(limit=limit):
            reply = reply_rows("library", catalogue.find(limit=limit))
        case Protect(number=number):
            reply = reply_changed("protected", catalogue.protect(number))
        case Unprotect(number=number):
            reply = reply_changed("unprotected", catalogue.protect(number, False))
        case Delete(number=number):
            reply = reply_changed("deleted", catalogue.delete(number))
        case _:
            raise AssertionError(f"not a library command: {command}")
    return reply


def find_rows(command: Clips | Pictures, catalogue: Catalogue, now_utc_ns: int, kinds: Sequence[str]) -> list[Entry]:
    """Rows newest first."""
    return catalogue.find(
        kinds=kinds or other_kinds(catalogue),
        cameras=[command.camera] if command.camera else [],
        since_utc_ns=instant_ns(command.since, now_utc_ns),
        until_utc_ns=instant_ns(command.until, now_utc_ns),
        limit=command.limit,
    )


def other_kinds(catalogue: Catalogue) -> list[str]:
    """Every kind that is neither clip nor archive; nothing matches where there is none."""
    return [kind for kind in catalogue.kinds() if kind not in (*CLIP_KINDS, "archive")] or ["picture"]


def reply_rows(what: str, entries: Sequence[Entry]) -> Reply:
    """Answer with rows."""
    text = "\n".join(line(entry) for entry in entries) or f"no {what} yet"
    return Reply(status=what, text=text, data={"rows": [row(entry) for entry in entries]})


def reply_row(entry: Entry) -> Reply:
    """Answer with everything about one row."""
    return Reply(status="library", text=show(entry), data=row(entry))


def reply_changed(what: str, entry: Entry) -> Reply:
    """Answer with what was done."""
    return Reply(status=what, text=f"OK: {what} {entry.id} {entry.path}", data=row(entry))


log = logging.getLogger(__name__)

FINDINGS_SHOWN = 100
"""In one reply; `shmcam library check` on the files shows all."""


def reconcile(catalogue: Catalogue) -> Reply:
    """On start, and when files may lack a row: rows for files that a crash left without one, and no leftovers."""
    catalogue.missed.clear()  # before the look, which may be too early for a file that is saved meanwhile
    try:
        adopted, gone = catalogue.reconcile()
    except BaseException:
        catalogue.missed.set()  # tried again at the next look at the disks
        raise
    lost = tidied(catalogue.folders)
    for folder in catalogue.away:
        if catalogue.mounts.away(folder):
            log.warning("library folder without its disk, rows kept and nothing written folder=%s", folder)
    log.info("library reconciled adopted=%d gone=%d leftovers=%d", len(adopted), len(gone), len(lost))
    return Reply(data={"adopted": len(adopted), "gone": len(gone)})


def reconcile_returned(catalogue: Catalogue) -> Reply:
    """From time to time: reconcile again when a folder that was away has files, as when its disk is mounted late."""
    back = [folder for folder in catalogue.away if not catalogue.mounts.away(folder) and found([folder])]
    if not back:
        return Reply(data={"adopted": 0, "gone": 0})
    log.info("library folder has files folders=%s", ",".join(map(str, back)))
    return reconcile(catalogue)


def reconcile_reopened(catalogue: Catalogue) -> Reply:
    """From time to time while files wait for their rows: once the library can be written they get them."""
    if refusal(catalogue.path):
        return Reply(data={"adopted": 0, "gone": 0})
    log.info("library can be written again path=%s", catalogue.path)
    return reconcile(catalogue)


def check_or_rebuild(catalogue: Catalogue, action: str) -> Reply:
    """Compare the library with the disk, or make it anew."""
    if action == "rebuild":
        count, kept = catalogue.rebuild()
        text = f"OK: rebuilt {count} rows from the files{catalogue.kept_text(kept)}"
        return Reply(status="library", text=text, data={"rows": count, "kept": kept})
    findings = catalogue.check()
    rows = [{**row(entry), "finding": how} for entry, how in findings[:FINDINGS_SHOWN]]
    text = "\n".join(f"{how}: {entry.path}" for entry, how in findings[:FINDINGS_SHOWN]) or "OK: every row has its file"
    return Reply(ok=not findings, status="library", text=text, data={"findings": rows, "count": len(findings)})
