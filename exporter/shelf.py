"""What the library commands answer: clips, pictures, library, protect, unprotect, delete. Quick; nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence

from control.messages import Clips, Command, Delete, Library, Pictures, Protect, Reply, Unprotect
from exporter import answers
from library import Catalogue, Entry, LibraryError
from library.entry import GROUPS
from library.instants import instant_ns
from library.rows import line, row, show

CLIP_KINDS = tuple(kind for kind, group in GROUPS.items() if group == "clips")


def answer(command: Command, catalogue: Catalogue, now_utc_ns: int) -> Reply:
    """Carry out one of these commands. Raises: ValueError (the caller's fault), OSError, sqlite3.Error."""
    try:
        if isinstance(command, (Clips, Pictures)):
            return _listed(command, catalogue, now_utc_ns)
        return _changed(command, catalogue)
    except LibraryError as problem:
        return answers.refused(problem)


def _listed(command: Clips | Pictures, catalogue: Catalogue, now_utc_ns: int) -> Reply:
    if isinstance(command, Clips):
        return listing("clips", find_rows(command, catalogue, now_utc_ns, CLIP_KINDS))
    kinds = (command.kind,) if command.kind else ()
    return listing("pictures", find_rows(command, catalogue, now_utc_ns, kinds))


def _changed(command: Command, catalogue: Catalogue) -> Reply:
    match command:
        case Library(action="show", number=number):
            reply = shown(catalogue.get(number))
        case Library(limit=limit):
            reply = listing("library", catalogue.find(limit=limit))
        case Protect(number=number):
            reply = changed("protected", catalogue.protect(number))
        case Unprotect(number=number):
            reply = changed("unprotected", catalogue.protect(number, False))
        case Delete(number=number):
            reply = changed("deleted", catalogue.delete(number))
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


def listing(what: str, entries: Sequence[Entry]) -> Reply:
    """Answer with rows."""
    text = "\n".join(line(entry) for entry in entries) or f"no {what} yet"
    return Reply(status=what, text=text, data={"rows": [row(entry) for entry in entries]})


def shown(entry: Entry) -> Reply:
    """Answer with everything about one row."""
    return Reply(status="library", text=show(entry), data=row(entry))


def changed(what: str, entry: Entry) -> Reply:
    """Answer with what was done."""
    return Reply(status=what, text=f"OK: {what} {entry.id} {entry.path}", data=row(entry))
