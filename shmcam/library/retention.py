"""Deletes files to make room: the limits of [library], and the order in which files exceed them.

Only `make_room` and `keep_newest` delete; the other functions decide. The order: ordinary files before triggered ones,
oldest first, protected ones never. "Oldest" is the order in which files were added, and ages are library time
(`shmcam.library.database`), so a wall clock that jumps deletes nothing. Archives were made on purpose: they are deleted
only by their own limits, never for free space. What a person recorded is never deleted for an ordinary file. With
`library.delete_only_uploaded` a file goes only if a verified copy of it lies elsewhere.

Nothing is deleted for free space unless all that may go is enough: if another program fills the disk, recordings would
be lost for nothing. Nor is more deleted before the disk has given back the room of what went: btrfs does so at its next
commit, a NAS with a recycle bin or a file system with snapshots perhaps never. `Catalogue.trouble` says then what is
wrong, and so it does where files cannot be deleted.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from shmcam.config.settings import Paths, Settings
from shmcam.library.catalogue import Catalogue
from shmcam.library.database import explain_not_writable
from shmcam.library.disks.disk_space import MB, DiskRoom, measure_room, sync_disk
from shmcam.library.entry import BY_HAND, GROUPS, ORDINARY_TRIGGERS, Entry
from shmcam.library.errors import EntryProtected, LibraryBusy, LibraryError, NoRoom, NoSuchEntry, NotWritable
from shmcam.library.files import frees_space
from shmcam.library.query import sql_of_group
from shmcam.library.settings import LibrarySettings
from shmcam.runtime.atomic_files import existing_parent_of
from shmcam.runtime.folder_checks import explain_unusable

DAY_S = 86_400.0


class GroupLimits(Struct, frozen=True):
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

NOT_MOUNTED = "its disk is not mounted (`shmcam library rebuild --accept` does without it)"
GIVEN_BACK = 0.5
"""Share of what was deleted that the disk must have given back before more is; others write to it meanwhile."""
AWAITED_S = 600.0
"""Longest time in which nothing more is deleted; others may have taken what came back."""
BATCH = 200
"""Rows read in one step: make_room runs before every file and must not read a library of 100,000 rows."""


def require_disk(paths: Paths, catalogue: Catalogue, folder: Path) -> None:
    """Refuses a folder whose disk is not there: a file would land in the bare mount point.

    For what is written beside the files of the library; `make_room` does it for these. While the library, which
    remembers the disks, cannot be read, nothing is refused. Raises: NoRoom.
    """
    try:
        with catalogue.hurry():
            _refuse_missing_disk(paths, catalogue, folder)
    except NoRoom:
        raise
    except LibraryError as problem:
        log.warning("library is not usable, disks not checked reason=%s", problem)


def _refuse_missing_disk(paths: Paths, catalogue: Catalogue, folder: Path) -> None:
    if link := paths.find_dangling_link(folder):
        raise NoRoom(errno.ENODEV, f"{link} {explain_unusable(link)}", str(folder))
    if catalogue.mounts.is_away(folder):
        raise NoRoom(errno.ENODEV, NOT_MOUNTED, str(folder))


def make_room(
    settings: Settings,
    catalogue: Catalogue,
    need_bytes: int,
    folder: Path | None = None,
    *,
    kind: str = "",
    trigger: str = "save",
    writing: Collection[Path] = (),
    at_least_bytes: int = 0,
) -> list[Entry]:
    """Applies every limit, then deletes until `need_bytes` fit into `folder` (default: captures) above the reserve.

    To be called before a file of `kind`, caused by `trigger`, is opened, so that the limits of its group hold with it.
    `writing`: files in the catalogue that are still being written. `at_least_bytes`: to be freed although the disk says
    that it has room, where a quota refused a file. If the library cannot be used, nothing is deleted, as a row must not
    outlive its file. Returns: the entries deleted. Raises: NoRoom, OSError.
    """
    own = settings.table(LibrarySettings)
    target = folder or settings.paths.captures
    place = existing_parent_of(target)
    spared = BY_HAND if trigger in ORDINARY_TRIGGERS else frozenset()
    work = _Deletions(catalogue, _describe_kept(own))
    unusable = ""
    try:
        with catalogue.hurry():
            _refuse_missing_disk(settings.paths, catalogue, target)
            closed = explain_not_writable(catalogue.path)
            if not closed:
                for entry in select_due(catalogue, own, need_bytes, kind=kind, writing=writing, spared=spared):
                    work.delete(entry, "limit")
                candidates = _OnDisk(catalogue, own, place.stat().st_dev, writing, spared)
                _free_space(work, candidates, _Disk(place, own), need_bytes, at_least_bytes)
    except LibraryError as problem:
        if isinstance(problem, NoRoom):
            raise
        log.warning("library is not usable, nothing deleted reason=%s", problem)
        closed = str(problem)
        unusable = "" if isinstance(problem, LibraryBusy) else closed
    short = _describe_shortage(measure_room(place, own), need_bytes)
    why = f"nothing can be deleted: {closed}" if closed else work.reason
    catalogue.report_trouble(f"disk full: {short}; {why}" if short and not closed else work.trouble or unusable)
    if short:
        raise NoRoom(errno.ENOSPC, f"{short}; {why}", str(place))
    return work.deleted


def _describe_shortage(room: DiskRoom, need_bytes: int) -> str:
    """Returns what is missing for a file, in words; empty where it fits."""
    if (short := room.missing_bytes(need_bytes)) > 0:
        keys = "library.free_reserve_mb, library.free_reserve_percent"
        return f"{short / MB:.1f} MB short of {need_bytes / MB:.1f} MB plus the reserve ({keys})"
    if room.missing_files > 0:
        return f"{room.missing_files} inodes short: {room.free_files} of {room.total_files} are free"
    return ""


def _describe_kept(settings: LibrarySettings) -> str:
    """Returns what the files are that may not go, in words."""
    kept = "protected, archived, recorded by hand or not ours"
    return f"not uploaded (library.delete_only_uploaded), {kept}" if settings.delete_only_uploaded else kept


class _Deletions:
    """The deletions of one call: what went, and what could not."""

    def __init__(self, catalogue: Catalogue, kept: str = "") -> None:
        """`kept`: what files that stay are, in words."""
        self.catalogue = catalogue
        self.kept = kept
        self.deleted: list[Entry] = []
        self.refused: dict[Path, str] = {}
        self.reason = f"what is left is {kept}"

    @property
    def trouble(self) -> str:
        """The files that could not be deleted, in words; empty where all could."""
        if not self.refused:
            return ""
        path, reason = next(iter(self.refused.items()))
        return f"{len(self.refused)} files cannot be deleted, such as {path}: {reason}"

    def delete(self, entry: Entry, reason: str) -> None:
        """Deletes one entry; notes an error."""
        try:
            self.catalogue.delete(entry.id, reason)
        except (NoSuchEntry, EntryProtected):
            return  # another process deleted it, or it was protected since it was chosen
        except NotWritable:
            raise  # the library is at fault, not this file
        except (LibraryError, OSError) as error:
            self.refused[entry.path] = str(error)
            return
        self.deleted.append(entry)


class _OnDisk(Struct, frozen=True):
    """The entries of one disk that may go for free space, in order of deletion."""

    catalogue: Catalogue
    settings: LibrarySettings
    device: int
    writing: Collection[Path]
    spared: Collection[str]
    """Triggers of files that stay."""

    def __iter__(self) -> Iterator[Entry]:
        for entry in _iterate_in_order(self.catalogue, self.settings, "kind != 'archive'", self.writing):
            if entry.trigger not in self.spared and _device_of(entry.path) == self.device and frees_space(entry):
                yield entry


class _Disk(Struct, frozen=True):
    """The disk on which room is made."""

    place: Path
    settings: LibrarySettings

    def measure(self) -> DiskRoom:
        """Looks at the room now. Raises: OSError."""
        return measure_room(self.place, self.settings)

    def measure_after_deleting(self, before: DiskRoom, deleted: Collection[Entry]) -> tuple[DiskRoom, bool]:
        """Looks at the room after these went. Returns: also whether it came back, which may need a commit (btrfs)."""
        size, files = sum(entry.bytes for entry in deleted), len(deleted)
        room = before
        for sync in (False, True):
            if sync:
                sync_disk(self.place)
            room = self.measure()
            came, inodes = room.free_bytes - before.free_bytes, room.free_files - before.free_files
            if (
                not (deleted and room.total_bytes)
                or came >= size * GIVEN_BACK
                or (room.total_files and inodes >= files * GIVEN_BACK)
            ):
                return room, True
        return room, False


def clean(settings: Settings, catalogue: Catalogue) -> list[Entry]:
    """Applies every limit now. Returns: the entries deleted. Raises: as `make_room`, after both disks were tried."""
    try:
        deleted = make_room(settings, catalogue, 0, settings.paths.captures)
    except NoRoom:
        make_room(settings, catalogue, 0, settings.paths.recordings)
        raise
    return deleted + make_room(settings, catalogue, 0, settings.paths.recordings)


def select_to_clean(settings: Settings, catalogue: Catalogue) -> list[Entry]:
    """Returns the entries that `clean` would delete now, in its order, and deletes nothing. Raises: OSError."""
    own = settings.table(LibrarySettings)
    chosen = {entry.path: entry for entry in select_due(catalogue, own)}
    for folder in map(existing_parent_of, (settings.paths.captures, settings.paths.recordings)):
        device = folder.stat().st_dev

        def frees(entry: Entry, device: int = device) -> bool:
            return _device_of(entry.path) == device and frees_space(entry)

        room, gone = measure_room(folder, own), list(filter(frees, chosen.values()))
        short = room.missing_bytes(0) - sum(entry.bytes for entry in gone)
        short_files = room.missing_files - sum(map(_count_files, gone))
        candidates = _iterate_in_order(catalogue, own, "kind != 'archive'", ())
        rest = (entry for entry in candidates if entry.path not in chosen)
        found, size, files = _select_for_space(filter(frees, rest), short, short_files)
        if size >= short and files >= short_files:
            chosen |= {entry.path: entry for entry in found}
    return list(chosen.values())


def _select_for_space(candidates: Iterable[Entry], short: int, short_files: int) -> tuple[list[Entry], int, int]:
    """Returns the first candidates that give so many bytes and files back, all if they do not; and what they give."""
    chosen: list[Entry] = []
    size = files = 0
    if short <= 0 and short_files <= 0:  # checked first, so that no row is read
        return chosen, size, files
    for entry in candidates:
        if size >= short and files >= short_files:
            break
        chosen.append(entry)
        size, files = size + entry.bytes, files + _count_files(entry)
    return chosen, size, files


def _count_files(entry: Entry) -> int:
    return 1 + len(entry.companions)


def _free_space(work: _Deletions, candidates: _OnDisk, disk: _Disk, need_bytes: int, at_least_bytes: int) -> None:
    """Deletes the oldest until enough is free; nothing if all that may go is not enough, or what went gave no room."""
    awaited, now_s = work.catalogue.awaited_room, time.monotonic()
    room = disk.measure()
    free_bytes, until_s = awaited.get(candidates.device, (0, 0.0))
    if room.free_bytes >= free_bytes or now_s > until_s:
        awaited.pop(candidates.device, None)
    while True:
        short, short_files = max(room.missing_bytes(need_bytes), at_least_bytes), room.missing_files
        if short <= 0 and short_files <= 0:
            return
        if candidates.device in awaited:
            work.reason = "the disk has not given back the room of what was deleted (a recycle bin, snapshots?)"
            return
        rest = (entry for entry in candidates if entry.path not in work.refused)
        chosen, size, files = _select_for_space(rest, short, short_files)
        if size < short or files < short_files:
            work.reason = (
                f"all {len(chosen)} files that may go have {size / MB:.1f} MB, so none was deleted; "
                f"the others are {work.kept}"
            )
            return
        already = len(work.deleted)
        for entry in chosen:
            work.delete(entry, "free space")
        deleted = work.deleted[already:]
        size = sum(entry.bytes for entry in deleted)
        at_least_bytes -= size
        wanted_bytes = room.free_bytes + round(size * GIVEN_BACK)
        room, is_back = disk.measure_after_deleting(room, deleted)
        if not is_back:
            awaited[candidates.device] = wanted_bytes, now_s + AWAITED_S


def select_due(
    catalogue: Catalogue,
    settings: LibrarySettings,
    need_bytes: int = 0,
    *,
    kind: str = "",
    writing: Collection[Path] = (),
    spared: Collection[str] = (),
) -> list[Entry]:
    """Returns the entries to delete by count, size and age, without regard to free space.

    `spared`: triggers of files that go by their age only.
    """
    coming = GROUPS.get(kind, "pictures") if kind else ""
    own = limits_of(settings)
    if not settings.max_total_mb and set(own.values()) == {GroupLimits()}:
        return []  # the shipped settings: only the reserve of free space counts
    totals = catalogue.sum_groups(besides=catalogue.list_away())
    now_s = catalogue.read_library_s() if any(limits.max_age_s for limits in own.values()) else 0.0
    chosen: dict[Path, Entry] = {}
    for group, limits in own.items():
        if limits.max_age_s:
            where = f"{sql_of_group(group)} AND added_s < ?"
            expired = _iterate_in_order(catalogue, settings, where, writing, now_s - limits.max_age_s)
            chosen |= {entry.path: entry for entry in expired}
        count, size = totals.get(group, (0, 0))
        expired_bytes = [entry.bytes for entry in chosen.values() if entry.group == group]
        count, size = count - len(expired_bytes), size - sum(expired_bytes)
        excess = (
            limits.count_excess(count + 1, size + need_bytes) if group == coming else limits.count_excess(count, size)
        )
        rest = (
            entry
            for entry in _iterate_in_order(catalogue, settings, sql_of_group(group), writing)
            if entry.path not in chosen and entry.trigger not in spared
        )
        chosen |= {entry.path: entry for entry in select_excess(rest, *excess)}
    if not settings.max_total_mb:
        return list(chosen.values())
    everything = sum(size for group, (_, size) in totals.items() if group != "archives")
    everything += need_bytes if coming != "archives" else 0
    everything -= sum(entry.bytes for entry in chosen.values() if entry.group != "archives")
    rest = (
        entry
        for entry in _iterate_in_order(catalogue, settings, "kind != 'archive'", writing)
        if entry.path not in chosen and entry.trigger not in spared
    )
    return [*chosen.values(), *select_excess(rest, 0, max(0, everything - settings.max_total_mb * MB))]


def keep_newest(catalogue: Catalogue, count: int, *, only_uploaded: bool = False, **which: str) -> list[Entry]:
    """Deletes all but the newest `count` unprotected files whose columns equal `which` (kind, camera, trigger).

    For the recorder's `rolling_clips_count`. `only_uploaded`: of these, only files of which a verified copy lies
    elsewhere. Returns: what was deleted.
    """
    if unknown := which.keys() - {"kind", "camera", "trigger"}:
        raise ValueError(f"keep_newest: cannot choose by {', '.join(sorted(unknown))}")
    where = " AND ".join(["protected = 0", *(f"{column} = ?" for column in which)])
    work = _Deletions(catalogue)
    for entry in catalogue.select(where, list(which.values()), "id DESC")[count:]:
        if entry.uploaded or not only_uploaded:
            work.delete(entry, "count")
    return work.deleted


def _iterate_in_order(
    catalogue: Catalogue, settings: LibrarySettings, where: str, writing: Collection[Path], *values: float
) -> Iterator[Entry]:
    """Yields the rows that may go in order of deletion, read in batches; none of a disk that is not mounted."""
    away = catalogue.list_away()
    may_go = "protected = 0 AND uploaded != ''" if settings.delete_only_uploaded else "protected = 0"
    triggered, number = 0, 0
    while True:
        page = f"{may_go} AND (triggered, id) > (?, ?) AND {where}"
        batch = catalogue.select(page, (triggered, number, *values), "triggered, id", BATCH)
        for entry in batch:
            if entry.path not in writing and not any(map(entry.path.is_relative_to, away)):
                yield entry
        if len(batch) < BATCH:
            return
        triggered, number = int(batch[-1].is_triggered), batch[-1].id


def _device_of(path: Path) -> int:
    try:
        return path.stat().st_dev
    except OSError:
        return -1
