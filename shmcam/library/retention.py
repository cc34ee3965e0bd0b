"""Deletes files to make room: the limits of [library], and the order in which files exceed them.

Only `make_room` and `keep_newest` delete; the other functions decide. The order: ordinary files before triggered ones,
oldest first, protected ones never. "Oldest" is the order in which files were added, and ages are library time
(`shmcam.library.database`), so a wall clock that jumps deletes nothing. Archives were made on purpose: they are deleted
only by their own limits, never for free space.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shmcam.config.settings import Settings
from shmcam.library.catalogue import Catalogue
from shmcam.library.database import explain_not_writable
from shmcam.library.disk_space import MB, measure_room
from shmcam.library.entry import GROUPS, Entry
from shmcam.library.errors import EntryProtected, LibraryError, NoRoom, NoSuchEntry
from shmcam.library.files import frees_space
from shmcam.library.query import sql_of_group
from shmcam.library.settings import LibrarySettings
from shmcam.runtime.atomic_files import existing_parent_of

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """The limits of one group; 0 does not limit."""

    max_count: int = 0
    """The number of files."""
    max_bytes: int = 0
    """The bytes of all files."""
    max_age_s: float = 0.0
    """The age in seconds of library time."""

    def count_excess(self, count: int, size: int) -> tuple[int, int]:
        """Returns the files and the bytes above the limits."""
        over_count = max(0, count - self.max_count) if self.max_count else 0
        return over_count, max(0, size - self.max_bytes) if self.max_bytes else 0


def limits_of(settings: LibrarySettings) -> dict[str, GroupLimits]:
    """Returns the limits of each group by the keys of [library]."""
    return {
        group: GroupLimits(
            getattr(settings, f"{group}_max_count"),
            getattr(settings, f"{group}_max_mb") * MB,
            getattr(settings, f"{group}_max_days") * DAY_S,
        )
        for group in ("pictures", "clips", "films", "archives")
    }


def select_excess(candidates: Iterable[Entry], count: int, size: int) -> Iterator[Entry]:
    """Yields the candidates, given in order of deletion, until they are `count` files and `size` bytes."""
    remaining = iter(candidates)
    while count > 0 or size > 0:  # checked first, so that without an excess no row is read
        entry = next(remaining, None)
        if entry is None:
            return
        yield entry
        count -= 1
        size -= entry.bytes


log = logging.getLogger(__name__)

BATCH = 200
"""Rows read in one step: make_room runs before every file and must not read a library of 100,000 rows."""


def make_room(
    settings: Settings,
    catalogue: Catalogue,
    need_bytes: int,
    folder: Path | None = None,
    *,
    kind: str = "",
    writing: Collection[Path] = (),
) -> list[Entry]:
    """Applies every limit, then deletes until `need_bytes` fit into `folder` (default: captures) above the reserve.

    To be called before a file of `kind` is opened, so that the limits of its group hold with it. `writing`: files in
    the catalogue that are still being written. A file that cannot be deleted is skipped with a warning; if the library
    cannot be written, none is deleted, as a row must not outlive its file.
    Returns: the entries deleted. Raises: NoRoom, OSError, sqlite3.Error.
    """
    own = settings.table(LibrarySettings)
    folder = folder or settings.paths.captures
    if catalogue.mounts.is_away(folder):
        raise NoRoom(
            errno.ENODEV, "its disk is not mounted (`shmcam library rebuild --accept` does without it)", str(folder)
        )
    folder = existing_parent_of(folder)
    deleted: list[Entry] = []
    closed = explain_not_writable(catalogue.path)
    for entry in () if closed else select_due(catalogue, own, need_bytes, kind=kind, writing=writing):
        _remove(catalogue, entry, "limit", deleted)
    short = measure_room(folder, own).missing_bytes(need_bytes)
    if short > 0 and not closed:
        short = _free_space(catalogue, own, folder, need_bytes, writing=writing, deleted=deleted)
    if short > 0:
        raise NoRoom(
            errno.ENOSPC,
            f"{short / MB:.1f} MB short of {need_bytes / MB:.1f} MB plus the reserve (library.free_reserve_mb, "
            "library.free_reserve_percent); "
            + (f"nothing can be deleted: {closed}" if closed else "what is left is protected, archived or not ours"),
            str(folder),
        )
    return deleted


def _free_space(
    catalogue: Catalogue,
    own: LibrarySettings,
    folder: Path,
    need_bytes: int,
    *,
    writing: Collection[Path],
    deleted: list[Entry],
) -> int:
    """Deletes the oldest on this disk until enough is free. Returns: bytes that are still missing."""
    device = folder.stat().st_dev
    candidates = _iterate_in_order(catalogue, "kind != 'archive'", writing)
    while (short := measure_room(folder, own).missing_bytes(need_bytes)) > 0 and (
        entry := next(candidates, None)
    ) is not None:
        if _device_of(entry.path) == device and frees_space(entry):
            _remove(catalogue, entry, "free space", deleted)
    return short


def select_due(
    catalogue: Catalogue,
    settings: LibrarySettings,
    need_bytes: int = 0,
    *,
    kind: str = "",
    writing: Collection[Path] = (),
) -> list[Entry]:
    """Returns the entries to delete by count, size and age, without regard to free space."""
    coming = GROUPS.get(kind, "pictures") if kind else ""
    own = limits_of(settings)
    if not settings.max_total_mb and set(own.values()) == {GroupLimits()}:
        return []  # the shipped settings: only the reserve of free space counts
    totals = catalogue.sum_groups()
    now_s = catalogue.read_library_s() if any(limits.max_age_s for limits in own.values()) else 0.0
    chosen: dict[Path, Entry] = {}
    for group, limits in own.items():
        if limits.max_age_s:
            where = f"{sql_of_group(group)} AND added_s < ?"
            expired = _iterate_in_order(catalogue, where, writing, now_s - limits.max_age_s)
            chosen |= {entry.path: entry for entry in expired}
        count, size = totals.get(group, (0, 0))
        expired_bytes = [entry.bytes for entry in chosen.values() if entry.group == group]
        count, size = count - len(expired_bytes), size - sum(expired_bytes)
        excess = (
            limits.count_excess(count + 1, size + need_bytes) if group == coming else limits.count_excess(count, size)
        )
        rest = (
            entry for entry in _iterate_in_order(catalogue, sql_of_group(group), writing) if entry.path not in chosen
        )
        chosen |= {entry.path: entry for entry in select_excess(rest, *excess)}
    if not settings.max_total_mb:
        return list(chosen.values())
    everything = sum(size for group, (_, size) in totals.items() if group != "archives")
    everything += need_bytes if coming != "archives" else 0
    everything -= sum(entry.bytes for entry in chosen.values() if entry.group != "archives")
    rest = (entry for entry in _iterate_in_order(catalogue, "kind != 'archive'", writing) if entry.path not in chosen)
    return [*chosen.values(), *select_excess(rest, 0, max(0, everything - settings.max_total_mb * MB))]


def keep_newest(catalogue: Catalogue, count: int, **which: str) -> list[Entry]:
    """Deletes all but the newest `count` unprotected files whose columns equal `which` (kind, camera, trigger).

    For the recorder's `rolling_clips_count`. Returns: what was deleted.
    """
    if unknown := which.keys() - {"kind", "camera", "trigger"}:
        raise ValueError(f"keep_newest: cannot choose by {', '.join(sorted(unknown))}")
    where = " AND ".join(["protected = 0", *(f"{column} = ?" for column in which)])
    deleted: list[Entry] = []
    for entry in catalogue.select(where, list(which.values()), "id DESC")[count:]:
        _remove(catalogue, entry, "count", deleted)
    return deleted


def _iterate_in_order(catalogue: Catalogue, where: str, writing: Collection[Path], *values: float) -> Iterator[Entry]:
    """Yields the unprotected rows in order of deletion, read in batches."""
    triggered, number = 0, 0
    while True:
        page = f"protected = 0 AND (triggered, id) > (?, ?) AND {where}"
        batch = catalogue.select(page, (triggered, number, *values), "triggered, id", BATCH)
        yield from (entry for entry in batch if entry.path not in writing)
        if len(batch) < BATCH:
            return
        triggered, number = int(batch[-1].is_triggered), batch[-1].id


def _remove(catalogue: Catalogue, entry: Entry, reason: str, deleted: list[Entry]) -> None:
    try:
        catalogue.delete(entry.id)
    except (NoSuchEntry, EntryProtected):
        return  # another process deleted it, or it was protected since it was chosen
    except (LibraryError, OSError) as error:
        log.warning("not deleted path=%s reason=%s", entry.path, error)
        return
    log.info("deleted path=%s bytes=%d reason=%s trigger=%s", entry.path, entry.bytes, reason, entry.trigger or "none")
    deleted.append(entry)


def _device_of(path: Path) -> int:
    try:
        return path.stat().st_dev
    except OSError:
        return -1
