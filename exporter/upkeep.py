"""The library and the disk agree: on start, and when somebody asks."""

from __future__ import annotations

import logging

from control.messages import Reply
from library import Catalogue
from library.files import found, tidied
from library.read_only import refusal
from library.rows import row

log = logging.getLogger(__name__)

FINDINGS_SHOWN = 100
"""In one reply; `shmcam library check` on the files shows all."""


def reconciled(catalogue: Catalogue) -> Reply:
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


def returned(catalogue: Catalogue) -> Reply:
    """From time to time: reconcile again when a folder that was away has files, as when its disk is mounted late."""
    back = [folder for folder in catalogue.away if not catalogue.mounts.away(folder) and found([folder])]
    if not back:
        return Reply(data={"adopted": 0, "gone": 0})
    log.info("library folder has files folders=%s", ",".join(map(str, back)))
    return reconciled(catalogue)


def reopened(catalogue: Catalogue) -> Reply:
    """From time to time while files wait for their rows: once the library can be written they get them."""
    if refusal(catalogue.path):
        return Reply(data={"adopted": 0, "gone": 0})
    log.info("library can be written again path=%s", catalogue.path)
    return reconciled(catalogue)


def checked(catalogue: Catalogue, action: str) -> Reply:
    """Compare the library with the disk, or make it anew."""
    if action == "rebuild":
        count, kept = catalogue.rebuild()
        text = f"OK: rebuilt {count} rows from the files{catalogue.kept_text(kept)}"
        return Reply(status="library", text=text, data={"rows": count, "kept": kept})
    findings = catalogue.check()
    rows = [{**row(entry), "finding": how} for entry, how in findings[:FINDINGS_SHOWN]]
    text = "\n".join(f"{how}: {entry.path}" for entry, how in findings[:FINDINGS_SHOWN]) or "OK: every row has its file"
    return Reply(ok=not findings, status="library", text=text, data={"findings": rows, "count": len(findings)})
