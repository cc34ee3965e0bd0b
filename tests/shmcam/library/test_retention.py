"""Retention: what goes, in which order, and what never does."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from shmcam.cli import library
from shmcam.control.messages import Deleted
from shmcam.library import Catalogue, LibraryError, NoRoom, database, retention
from shmcam.library.archive import build
from shmcam.library.database import ClockReading, advance_library_s
from shmcam.library.disks import disk_space
from shmcam.library.disks.disk_space import reserve_bytes_of
from shmcam.library.entry import Entry
from shmcam.library.errors import LibraryBusy, NotWritable
from shmcam.library.manifest import Span
from shmcam.library.retention import GroupLimits, keep_newest, limits_of, make_room, select_due, select_excess
from shmcam.library.settings import LibrarySettings
from tests.shmcam.library.conftest import make_settings, on_disk

MB = 1_000_000


def table(**values: object) -> LibrarySettings:
    return LibrarySettings(**{"free_reserve_mb": 0, **values})


@pytest.mark.parametrize(("problem", "told"), [(NotWritable("no shared memory"), True), (LibraryBusy("locked"), False)])
def test_limits_that_cannot_be_applied_are_told_unless_it_passes(
    settings, catalogue, monkeypatch, caplog, problem, told
):
    """A library on a disk where SQLite cannot work: nothing was deleted any more, and nothing said so."""

    def refuse(*_some, **_more):
        raise problem

    monkeypatch.setattr(retention, "select_due", refuse)
    assert make_room(settings, catalogue, 0) == [] and catalogue.trouble == ("no shared memory" if told else "")
    assert caplog.messages[0] == f"library is not usable, nothing deleted reason={problem}"
    monkeypatch.undo()
    assert make_room(settings, catalogue, 0) == [] and catalogue.trouble == ""


def test_sqlite_s_shared_memory_that_a_disk_refuses_is_said_in_words():
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_SHMOPEN"
    assert "set paths.library to a file on another disk" in database._reason_of(error)


def test_too_many_takes_candidates_in_order_until_both_counts_are_met():
    entries = [Entry(kind="clip", camera="", path=Path(f"/{n}"), started_utc_ns=0, bytes=10, id=n) for n in range(9)]
    assert [e.id for e in select_excess(entries, 3, 0)] == [0, 1, 2]
    assert [e.id for e in select_excess(entries, 1, 35)] == [0, 1, 2, 3]
    assert list(select_excess(entries, 0, 0)) == [] and len(list(select_excess(entries, 99, 0))) == 9


@given(st.integers(0, 50), st.integers(0, 500), st.integers(0, 40), st.integers(0, 400))
def test_what_remains_never_exceeds_the_limits(count, size, max_count, max_bytes):
    over_count, over_size = GroupLimits(max_count, max_bytes).count_excess(count, size)
    assert not max_count or count - over_count <= max_count
    assert not max_bytes or size - over_size <= max_bytes
    assert (over_count, over_size) == (0, 0) or max_count or max_bytes


def test_the_smaller_of_both_reserves_counts_and_zero_switches_one_off():
    disk = 100_000 * MB
    assert reserve_bytes_of(LibrarySettings(), disk) == 500 * MB
    assert reserve_bytes_of(LibrarySettings(), 20 * MB) == 1 * MB
    assert reserve_bytes_of(table(free_reserve_percent=1.0), disk) == 1000 * MB
    assert reserve_bytes_of(table(free_reserve_mb=7, free_reserve_percent=0), disk) == 7 * MB
    assert reserve_bytes_of(table(free_reserve_percent=0), disk) == 0


def test_count_limits_hold_with_the_file_that_is_about_to_open(catalogue, saved, tmp_path):
    for _ in range(6):
        saved()
    settings = make_settings(tmp_path, "library.clips_max_count=4")
    assert [e.id for e in make_room(settings, catalogue, 10, kind="clip")] == [1, 2, 3]
    saved("new.mp4")
    assert len(catalogue.find()) == 4
    assert make_room(settings, catalogue, 10, kind="picture") == []
    saved("p.jpg", kind="picture")
    assert make_room(make_settings(tmp_path, "library.pictures_max_count=1"), catalogue, 0) == [], "none is coming"


def test_ordinary_files_go_before_triggered_ones_and_protected_ones_never(catalogue, saved):
    for trigger in ("motion", "", "auto", "save", "rolling", ""):
        saved(trigger=trigger)
    catalogue.protect(2)
    gone = select_due(catalogue, table(clips_max_count=1))
    assert [e.id for e in gone] == [3, 5, 6, 1, 4]
    assert [e.id for e in select_due(catalogue, table(clips_max_count=3))] == [3, 5, 6]
    assert select_due(catalogue, table(clips_max_count=1, delete_only_uploaded=True)) == [], "no copy lies elsewhere"


def test_each_kind_has_its_own_limits(catalogue, saved):
    for number in range(4):
        saved()
        saved(f"p{number}.npy", kind="picture")
        saved(f"t{number}.mp4", kind="timelapse")
    assert {e.kind for e in select_due(catalogue, table(pictures_max_count=2))} == {"picture"}
    assert {e.kind for e in select_due(catalogue, table(films_max_count=1))} == {"timelapse"}
    assert len(select_due(catalogue, table(pictures_max_count=2, clips_max_count=1, films_max_count=3))) == 2 + 3 + 1


def test_size_limits_count_bytes_per_kind_and_in_all(catalogue, saved):
    for number in range(4):
        saved(size=MB)
        saved(f"p{number}.npy", kind="picture", size=MB)
    assert [e.id for e in select_due(catalogue, table(clips_max_mb=2))] == [1, 3]
    assert [e.id for e in select_due(catalogue, table(max_total_mb=5))] == [1, 2, 3]
    assert [e.id for e in select_due(catalogue, table(max_total_mb=5), need_bytes=2 * MB)] == [1, 2, 3, 4, 5]


def ids_of(entries):
    return [entry.id for entry in entries]


def test_the_limit_of_all_files_counts_what_other_limits_take_and_no_archive(catalogue, saved):
    saved("old", kind="archive", size=5 * MB)
    for trigger in ("manual", "", "", ""):
        saved(size=MB, trigger=trigger)
    assert ids_of(select_due(catalogue, table(max_total_mb=4))) == []
    assert ids_of(select_due(catalogue, table(max_total_mb=3))) == [3]
    assert ids_of(select_due(catalogue, table(max_total_mb=3, clips_max_count=3))) == [3], "one file meets both"
    assert ids_of(select_due(catalogue, table(max_total_mb=3, archives_max_mb=1))) == [1, 3]
    assert ids_of(select_due(catalogue, table(max_total_mb=4), MB, kind="archive")) == []
    assert ids_of(select_due(catalogue, table(max_total_mb=4), MB, kind="stack")) == [3]
    assert ids_of(select_due(catalogue, table(max_total_mb=1), MB, kind="clip")) == [3, 4, 5, 2]
    assert ids_of(select_due(catalogue, table(max_total_mb=1), MB, kind="clip", spared={"manual"})) == [3, 4, 5]


def test_every_kind_without_a_group_of_its_own_counts_among_the_pictures(catalogue, saved):
    saved(size=MB), saved("k.png", kind="keogram", size=MB)
    assert ids_of(select_due(catalogue, table(pictures_max_count=1))) == []
    assert ids_of(select_due(catalogue, table(pictures_max_count=1), kind="stack")) == [2]
    assert ids_of(select_due(catalogue, table(pictures_max_mb=2), 2 * MB, kind="picture")) == [2]
    assert ids_of(select_due(catalogue, table(pictures_max_mb=2), 2 * MB, kind="clip")) == []


def test_what_is_written_stays_whatever_is_short(catalogue, saved, settings, tmp_path, monkeypatch):
    writing, other = saved(size=2 * MB), saved(size=2 * MB)
    monkeypatch.setattr(disk_space.os, "statvfs", Disk(settings.paths.recordings, 95 * MB))
    assert make_room(settings, catalogue, MB, writing=[writing.path]) == [other]
    limited = make_settings(tmp_path, "library.clips_max_count=1")
    assert make_room(limited, catalogue, MB, kind="clip", writing=[writing.path]) == []


def test_no_room_names_the_disk_and_a_library_that_refuses_is_the_reason(catalogue, saved, settings, monkeypatch):
    saved(size=2 * MB)
    monkeypatch.setattr(disk_space.os, "statvfs", Disk(settings.paths.recordings, 97 * MB))
    monkeypatch.setattr(retention, "explain_not_writable", lambda path: f"{path.name} is read-only")
    with pytest.raises(NoRoom, match=r"; nothing can be deleted: library\.sqlite3 is read-only") as problem:
        make_room(settings, catalogue, MB, settings.paths.recordings / "session_1")
    assert (problem.value.errno, problem.value.filename) == (errno.ENOSPC, str(settings.paths.recordings))
    assert catalogue.find() and not catalogue.trouble, "the library tells its own trouble"


def test_a_file_that_is_being_written_is_never_deleted(catalogue, saved):
    entries = [saved() for _ in range(3)]
    gone = select_due(catalogue, table(clips_max_count=1), writing=[entries[0].path])
    assert [e.id for e in gone] == [2, 3]


def age(catalogue: Catalogue, days: float) -> None:
    """Let library time pass."""
    catalogue.read_library_s()
    with sqlite3.connect(catalogue.path) as db:
        db.execute("UPDATE ages SET library_s = library_s + ?", (days * 86_400,))


def test_files_go_when_they_are_older_than_their_limit_by_library_time(catalogue, saved):
    saved()
    age(catalogue, 2)
    saved()
    age(catalogue, 2)
    assert [e.id for e in select_due(catalogue, table(clips_max_days=3))] == [1]
    assert select_due(catalogue, table(pictures_max_days=1)) == []


@pytest.mark.parametrize("jump_s", [-86_400.0, 6 * 3600.0, 86_400 * 365 * 50.0, -86_400 * 365 * 50.0])
def test_a_wall_clock_that_jumps_ages_nothing(jump_s):
    before = ClockReading("boot-a", 1000.0, 1_700_000_000.0)
    assert advance_library_s(50.0, before, ClockReading("boot-a", 1010.0, before.wall_s + jump_s)) == 60.0


def test_time_switched_off_is_believed_up_to_a_day():
    before = ClockReading("boot-a", 1000.0, 1_700_000_000.0)
    assert advance_library_s(50.0, before, ClockReading("boot-b", 20.0, before.wall_s + 3600)) == pytest.approx(
        50 + 3600
    )
    assert advance_library_s(50.0, before, ClockReading("boot-b", 20.0, before.wall_s + 50 * 86_400 * 365)) == 86_470
    assert advance_library_s(50.0, before, ClockReading("boot-b", 20.0, 0.0)) == 70  # came up in 1970
    assert advance_library_s(50.0, None, before) == 50


def test_a_jumping_clock_deletes_nothing_and_changes_no_order(catalogue, saved, monkeypatch):
    """Files of 1970, of now and of 2099, in the order they were added: the first added goes first."""
    for year_ns in (4_000_000_000, 0, 1_700_000_000):
        saved(started_utc_ns=year_ns * 10**9)
    monkeypatch.setattr(database.time, "time", lambda: 4_070_908_800.0)
    assert select_due(catalogue, table(clips_max_days=30)) == []
    assert [e.id for e in select_due(catalogue, table(clips_max_count=1))] == [1, 2]


def test_what_is_too_old_counts_before_anything_else_goes(catalogue, saved):
    """An old triggered file goes by its age; then no younger ordinary one has to go for the number's sake."""
    saved(trigger="motion")
    age(catalogue, 9)
    saved(), saved()
    assert [e.id for e in select_due(catalogue, table(clips_max_days=3, clips_max_count=2))] == [1]


def test_archives_do_not_count_in_the_limit_that_does_not_delete_them(catalogue, saved, settings):
    """An archive of links takes no space of its own; counted, it would cost every picture that nobody protected."""
    for _ in range(3):
        saved(size=MB)
    build(catalogue, settings.paths.archives, "trial", Span())
    assert select_due(catalogue, table(max_total_mb=3)) == []
    assert [e.id for e in select_due(catalogue, table(max_total_mb=3), need_bytes=1)] == [1]


def test_a_file_that_is_protected_after_it_was_chosen_stays(catalogue, saved, tmp_path, monkeypatch):
    entries = [saved() for _ in range(3)]
    real = retention.select_due

    def chosen(*args: object, **more: object) -> list[Entry]:
        found = real(*args, **more)
        catalogue.protect(1)
        catalogue.delete(2)  # and another process was faster
        return found

    monkeypatch.setattr(retention, "select_due", chosen)
    assert make_room(make_settings(tmp_path, "library.clips_max_count=1"), catalogue, 0) == []
    assert entries[0].path.exists() and [e.id for e in catalogue.find()] == [3, 1]


class Disk:
    """A disk of 100 MB on which deleting a file gives its bytes back."""

    def __init__(self, folder: Path, used: int) -> None:
        self.folder, self.others = folder, used

    def __call__(self, _path: object) -> object:
        used = self.others + sum(p.stat().st_size for p in self.folder.rglob("*.mp4") if p.stat().st_nlink == 1)
        return SimpleNamespace(
            f_bavail=max(0, 100 * MB - used),
            f_frsize=1,
            f_blocks=100 * MB,
            f_files=self.files,
            f_favail=self.free_files(),
        )

    files = 0

    def free_files(self) -> int:
        """An inode for each file, sidecars included."""
        return self.files - len(list(self.folder.rglob("*")))


def test_the_oldest_go_until_the_new_file_fits_above_the_reserve(catalogue, saved, settings, monkeypatch):
    for _ in range(5):
        saved(size=2 * MB)
    monkeypatch.setattr(disk_space.os, "statvfs", Disk(settings.paths.recordings, 90 * MB))
    deleted = make_room(settings, catalogue, 4 * MB)  # reserve: 1 MB, so 5 MB must be free: three must go
    assert [e.id for e in deleted] == [1, 2, 3]
    assert make_room(settings, catalogue, 4 * MB) == []


def test_files_of_a_disk_that_is_not_mounted_neither_go_nor_count(catalogue, saved, tmp_path, monkeypatch):
    """Their rows went, with the event `deleted`; when the disk was back they were adopted as the newest ones."""
    settings = make_settings(
        tmp_path, "library.max_total_mb=6", "library.clips_max_count=2", "library.pictures_max_count=2"
    )
    clips = [saved(size=2 * MB) for _ in range(3)]
    pictures = [saved(f"{number}.jpg", kind="picture", size=MB) for number in range(2)]
    recordings = settings.paths.recordings
    recordings.rename(tmp_path / "unplugged")
    monkeypatch.setattr(type(catalogue.mounts), "is_away", lambda _self, path: path.is_relative_to(recordings))
    assert make_room(settings, catalogue, MB, settings.paths.captures, kind="picture") == [pictures[0]]
    with pytest.raises(LibraryError, match="disk is not mounted; not deleted"):
        catalogue.delete(clips[0].id)
    assert [entry.id for entry in catalogue.find()] == [pictures[1].id, *(clip.id for clip in reversed(clips))]
    monkeypatch.undo()
    (tmp_path / "unplugged").rename(recordings)
    assert catalogue.reconcile() == ([], [])
    assert make_room(settings, catalogue, 0) == [clips[0]], "two clips, and five megabytes"


class SlowDisk(Disk):
    """One that gives the room of deleted files back only at `commit`: btrfs; without one, a NAS with a recycle bin."""

    def __init__(self, folder, others):
        super().__init__(folder, others)
        self.commit()

    def commit(self):
        self.free = super().__call__(self.folder).f_bavail

    def __call__(self, path):
        return SimpleNamespace(**{**vars(super().__call__(path)), "f_bavail": self.free})


def test_no_more_goes_before_the_disk_has_given_the_room_back(catalogue, saved, settings, monkeypatch):
    """On btrfs one shortage deleted the whole library: each look found the disk as full as before."""
    for _ in range(8):
        saved(size=2 * MB)
    disk = SlowDisk(settings.paths.recordings, 84 * MB)
    monkeypatch.setattr(disk_space.os, "statvfs", disk)
    monkeypatch.setattr(retention, "sync_disk", lambda _: None)
    for _ in range(4):
        with pytest.raises(NoRoom, match="has not given back the room"):
            make_room(settings, catalogue, 4 * MB)
        assert [entry.id for entry in catalogue.find()] == [8, 7, 6, 5, 4], "5 MB are short: three went"
    assert "has not given back" in catalogue.trouble
    disk.commit()
    assert make_room(settings, catalogue, 4 * MB) == [] and not catalogue.trouble
    now_s = time.monotonic()
    with pytest.raises(NoRoom):
        make_room(settings, catalogue, 6 * MB)
    assert len(catalogue.find()) == 4, "one more, after the room was back"
    monkeypatch.setattr(retention.time, "monotonic", lambda: now_s + retention.AWAITED_S + 60)
    with pytest.raises(NoRoom):
        make_room(settings, catalogue, 6 * MB)
    assert len(catalogue.find()) == 3, "others may have taken what came back: one more try in ten minutes"


def test_a_disk_that_does_not_tell_its_size_is_not_waited_for(catalogue, saved, settings, monkeypatch):
    for _ in range(4):
        saved(size=2 * MB)
    monkeypatch.setattr(retention, "measure_room", lambda *_: disk_space.DiskRoom(0, 0, 0))
    for number in (1, 2):
        deleted = make_room(settings, catalogue, MB, at_least_bytes=MB)
        assert [entry.id for entry in deleted] == [number]


def test_a_disk_that_gives_room_back_with_a_commit_is_asked_for_one(catalogue, saved, settings, monkeypatch):
    for _ in range(8):
        saved(size=2 * MB)
    disk = SlowDisk(settings.paths.recordings, 84 * MB)
    monkeypatch.setattr(disk_space.os, "statvfs", disk)
    monkeypatch.setattr(retention, "sync_disk", lambda _: disk.commit())
    assert [entry.id for entry in make_room(settings, catalogue, 4 * MB)] == [1, 2, 3]


def test_no_room_says_what_is_missing_and_leaves_protected_files_alone(catalogue, saved, settings, monkeypatch):
    entries = [saved(size=2 * MB) for _ in range(2)]
    catalogue.protect(entries[0].id)
    monkeypatch.setattr(disk_space.os, "statvfs", Disk(settings.paths.recordings, 96 * MB))
    with pytest.raises(NoRoom, match=r"4\.0 MB short of 3\.0 MB plus the reserve .*free_reserve_mb"):
        make_room(settings, catalogue, 3 * MB)
    assert all(entry.path.exists() for entry in entries), "4 MB were short, 2 MB could be freed: nothing was gained"
    assert "none was deleted" in catalogue.trouble and "disk full: 4.0 MB short" in catalogue.trouble


def test_what_clean_would_delete_is_what_it_deletes_where_not_all_is_enough(catalogue, saved, settings, monkeypatch):
    """`clean --dry-run` listed the whole library where another program fills the disk, and clean deleted none."""
    for _ in range(3):
        saved(size=MB // 5)
    monkeypatch.setattr(disk_space.os, "statvfs", Disk(settings.paths.recordings, 101 * MB))
    assert retention.select_to_clean(settings, catalogue) == []
    with pytest.raises(NoRoom, match="none was deleted"):
        retention.clean(settings, catalogue)
    disk = Disk(settings.paths.recordings, 0)
    disk.files = 9  # three clips and their sidecars leave too few
    monkeypatch.setattr(disk_space.os, "statvfs", disk)
    listed = retention.select_to_clean(settings, catalogue)
    assert listed and retention.clean(settings, catalogue) == listed


def test_a_file_whose_bytes_an_archive_keeps_is_not_deleted_for_space(
    catalogue, saved, settings, monkeypatch, tmp_path
):
    """Deleting one of two hard links frees nothing: it would be lost for no gain."""
    linked, plain = saved(size=MB), saved(size=MB)
    (tmp_path / "kept").hardlink_to(linked.path)
    monkeypatch.setattr(disk_space.os, "statvfs", Disk(settings.paths.recordings, 98 * MB))
    assert [e.id for e in make_room(settings, catalogue, MB)] == [plain.id]
    assert linked.path.exists()


def test_room_is_inodes_too(catalogue, saved, settings, monkeypatch):
    """A card of small pictures ran out of inodes with gigabytes free: nothing was deleted, nothing was saved."""
    for _ in range(6):
        saved()
    disk = Disk(settings.paths.recordings, 0)
    disk.files = 14  # a folder's worth is taken by six clips and their sidecars
    monkeypatch.setattr(disk_space.os, "statvfs", disk)
    assert [e.id for e in make_room(settings, catalogue, MB)] == [1, 2]
    disk.files = 7
    with pytest.raises(
        NoRoom, match=r"inodes short: -1 of 7 are free; all 4 files that may go have 0\.0 MB, so none was"
    ):
        make_room(settings, catalogue, MB)
    assert len(catalogue.find()) == 4


@pytest.mark.parametrize(("missing", "gone"), [(0, []), (1, [1]), (3, [1]), (4, [1, 2])])
def test_a_file_gives_the_inodes_of_its_companions_back_too(catalogue, saved, settings, monkeypatch, missing, gone):
    clips = [saved(companions=("a.csv", "a.txt")).path for _ in range(4)]
    full = disk_space.DiskRoom(10**9, 10**9, 0, 0, 100).missing_files

    def measure(_place, _own):
        freed = 3 * sum(not path.exists() for path in clips)
        return disk_space.DiskRoom(10**9, 10**9, 0, full - missing + freed, 100)

    monkeypatch.setattr(retention, "measure_room", measure)
    assert [entry.id for entry in make_room(settings, catalogue, 0)] == gone


def test_for_space_only_files_of_that_disk_go_and_no_archive(catalogue, saved, settings, monkeypatch):
    """One byte is missing."""
    saved("old", kind="archive", size=2 * MB)
    elsewhere, here = saved(size=2 * MB), saved(size=MB)
    real = retention._device_of
    monkeypatch.setattr(retention, "_device_of", lambda path: 0 if path == elsewhere.path else real(path))
    monkeypatch.setattr(
        retention, "measure_room", lambda *_: disk_space.DiskRoom(4 if here.path.exists() else 5, 10**9, 5)
    )
    assert retention.select_to_clean(settings, catalogue) == [here]
    assert make_room(settings, catalogue, 0) == [here]
    monkeypatch.setattr(retention, "measure_room", lambda *_: disk_space.DiskRoom(4, 10**9, 5))
    with pytest.raises(NoRoom, match=r"^.*0\.0 MB short of 0\.0 MB"):
        make_room(settings, catalogue, 0)


def test_a_recording_by_hand_is_not_deleted_for_a_rolling_clip(catalogue, saved, settings, monkeypatch, tmp_path):
    for trigger in ("manual", "rolling", "manual", "motion"):
        saved(size=2 * MB, trigger=trigger)
    monkeypatch.setattr(disk_space.os, "statvfs", Disk(settings.paths.recordings, 92 * MB))
    assert [e.id for e in make_room(settings, catalogue, 3 * MB, kind="clip", trigger="rolling")] == [2, 4]
    with pytest.raises(NoRoom, match="recorded by hand"):
        make_room(settings, catalogue, 5 * MB, kind="clip", trigger="rolling")
    limited = make_settings(tmp_path, "library.clips_max_count=1")
    assert make_room(limited, catalogue, 0, kind="clip", trigger="rolling") == []
    assert [e.id for e in make_room(settings, catalogue, 5 * MB, kind="clip", trigger="manual")] == [1]
    age(catalogue, 9)
    old = make_settings(tmp_path, "library.clips_max_days=3")
    assert [e.id for e in make_room(old, catalogue, 0, kind="clip", trigger="rolling")] == [3], "its own age"


def test_each_deletion_is_told_with_path_and_reason(catalogue, saved, settings, tmp_path, monkeypatch):
    told = []
    catalogue.on_deleted = lambda **fields: told.append(Deleted(**fields))
    with monkeypatch.context() as full:
        oldest = saved(size=MB)
        full.setattr(disk_space.os, "statvfs", Disk(settings.paths.recordings, 98 * MB))
        make_room(settings, catalogue, MB)
    assert [(event.path, event.reason) for event in told] == [(str(oldest.path), "free space")]
    told.clear()
    first, second, third = saved(), saved(trigger="manual"), saved()
    make_room(make_settings(tmp_path, "library.clips_max_count=3"), catalogue, 0, kind="clip")
    keep_newest(catalogue, 0, kind="clip", trigger="")
    catalogue.delete(second.id)
    assert [(event.path, event.reason, event.trigger) for event in told] == [
        (str(first.path), "limit", ""), (str(third.path), "count", ""), (str(second.path), "command", "manual"),
    ]  # fmt: skip


def test_a_quota_that_refuses_a_file_costs_the_oldest_ones_once(catalogue, saved, settings):
    for _ in range(4):
        saved(size=2 * MB)
    assert [e.id for e in make_room(settings, catalogue, MB, at_least_bytes=3 * MB)] == [1, 2]
    assert make_room(settings, catalogue, MB, at_least_bytes=9 * MB) == [], "all together are not enough"


def refuse_to_delete(monkeypatch, number):
    """The disk refuses to delete the entry of this id."""
    real = Catalogue.remove

    def remove(self: Catalogue, entry: Entry, reason: str) -> None:
        if entry.id == number:
            raise PermissionError(13, "read-only", str(entry.path))
        real(self, entry, reason)

    monkeypatch.setattr(Catalogue, "remove", remove)


def test_what_could_not_be_deleted_for_a_quota_is_made_up_for_and_what_a_limit_took_does_not_count(
    catalogue, saved, tmp_path, monkeypatch
):
    for _ in range(5):
        saved(size=2 * MB)
    refuse_to_delete(monkeypatch, 2)
    limited = make_settings(tmp_path, "library.clips_max_count=4")
    assert ids_of(make_room(limited, catalogue, 0, at_least_bytes=3 * MB)) == [1, 3, 4]


@pytest.mark.parametrize("is_linked", [True, False])
def test_a_disk_that_is_away_is_no_full_one_and_costs_nothing(catalogue, saved, tmp_path, monkeypatch, is_linked):
    saved()
    if is_linked:
        (tmp_path / "captures").symlink_to(tmp_path / "stick")
    settings = make_settings(tmp_path)
    target = settings.paths.captures
    if not is_linked:
        monkeypatch.setattr(type(catalogue.mounts), "is_away", lambda _self, path: path == target)
    expected = (
        "captures is a link to .*, which is not there" if is_linked else "its disk is not mounted .`shmcam library"
    )
    with pytest.raises(NoRoom, match=expected) as problem:
        make_room(settings, catalogue, MB)
    assert (problem.value.errno, problem.value.filename) == (errno.ENODEV, str(target)) and len(catalogue.find()) == 1


@pytest.mark.parametrize("only_uploaded", ["true", "false"])
def test_room_that_others_took_meanwhile_is_told_with_what_may_not_go(catalogue, tmp_path, monkeypatch, only_uploaded):
    rooms = iter([disk_space.DiskRoom(2 * MB, 10**9, 0), disk_space.DiskRoom(0, 10**9, 0)])
    monkeypatch.setattr(retention, "measure_room", lambda *_: next(rooms))
    settings = make_settings(tmp_path, f"library.delete_only_uploaded={only_uploaded}")
    with pytest.raises(NoRoom) as problem:
        make_room(settings, catalogue, MB)
    kept = "protected, archived, recorded by hand or not ours"
    more = "not uploaded (library.delete_only_uploaded), " if only_uploaded == "true" else ""
    keys = "library.free_reserve_mb, library.free_reserve_percent"
    said = f"1.0 MB short of 1.0 MB plus the reserve ({keys}); what is left is {more}{kept}"
    assert problem.value.strerror == said and catalogue.trouble == f"disk full: {said}"


def test_a_library_that_is_held_delays_no_file(catalogue, saved, settings, tmp_path):
    """`save` took 10 s and answered NOT_SAVED although the picture was there."""
    saved()
    with sqlite3.connect(catalogue.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert make_room(make_settings(tmp_path, "library.clips_max_days=3"), catalogue, 0) == []
        entry = catalogue.add_when_writable(on_disk(settings, "held.mp4"))
        assert entry.id == 0 and entry.bytes == 1000 and catalogue.missed.is_set()
        other.execute("ROLLBACK")
    assert [entry.path.name for entry in catalogue.reconcile()[0]] == ["held.mp4"]


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_a_folder_or_fifo_in_the_librarys_place_is_told(settings, kind):
    os.mkfifo(settings.paths.library) if kind == "fifo" else settings.paths.library.mkdir()
    with Catalogue.of(settings) as catalogue:
        assert make_room(settings, catalogue, 0) == []
        assert catalogue.add_when_writable(on_disk(settings, "a.mp4")).id == 0
        with pytest.raises(LibraryError, match="is no regular file; move it away"):
            catalogue.find()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET bytes = 'many'", "UPDATE entries SET companions = '{'", "UPDATE entries SET kind = x'00'",
        "ALTER TABLE entries RENAME COLUMN label TO tag", "ALTER TABLE entries DROP COLUMN score",
        "UPDATE entries SET duration_s = 'x', started_utc_ns = 1.5",
    ],
)  # fmt: skip
def test_a_library_that_somebody_edited_is_set_aside_and_made_anew(catalogue, saved, settings, damage):
    entry = saved(label="fox", companions=("a.csv",))
    catalogue.close()
    with sqlite3.connect(settings.paths.library) as db:
        db.execute(damage)
    assert catalogue.find() == [entry]
    assert catalogue.add(on_disk(settings, "new.mp4")).id == 2
    assert len(list(settings.paths.library.parent.glob("library.sqlite3.damaged-*"))) >= 1


def test_a_file_that_cannot_be_deleted_is_skipped(catalogue, saved, monkeypatch, tmp_path):
    saved(), saved(), saved()
    real = Catalogue.remove
    refuse_to_delete(monkeypatch, 1)
    settings = make_settings(tmp_path, "library.clips_max_count=1")
    assert [e.id for e in make_room(settings, catalogue, 0)] == [2]
    assert [e.id for e in catalogue.find()] == [3, 1]
    assert catalogue.trouble.startswith("1 files cannot be deleted, such as ") and "read-only" in catalogue.trouble
    monkeypatch.setattr(Catalogue, "remove", real)
    assert [e.id for e in make_room(settings, catalogue, 0)] == [1] and catalogue.trouble == "", (
        "it ends with its cause"
    )


def test_rolling_clips_keep_the_newest_of_their_camera(catalogue, saved):
    for number in range(8):
        saved(camera=f"cam{number % 2}", trigger="rolling" if number < 6 else "record")
    catalogue.protect(2)
    assert [e.id for e in keep_newest(catalogue, 1, kind="clip", camera="cam1", trigger="rolling")] == [4]
    assert [e.id for e in catalogue.find(newest_first=False)] == [1, 2, 3, 5, 6, 7, 8]
    with pytest.raises(ValueError, match="cannot choose by path"):
        keep_newest(catalogue, 1, path="x")
    with pytest.raises(ValueError, match=r"^keep_newest: cannot choose by label, path$"):
        keep_newest(catalogue, 1, path="x", label="y", kind="clip")
    catalogue.protect(5)
    assert keep_newest(catalogue, 2, kind="clip", camera="cam0", trigger="rolling") == [], "1 and 3; 5 does not count"


def test_thousands_of_files_are_decided_on_in_batches(catalogue, saved, settings):
    entry = saved()
    catalogue.insert([replace(entry, path=entry.path.with_name(f"x{n}.mp4")) for n in range(1000)])
    assert [e.id for e in select_due(catalogue, table(clips_max_count=10))] == list(range(1, 992))


def test_ordinary_files_go_first_also_where_a_batch_holds_triggered_ones(catalogue, saved):
    entry = saved()
    triggered = 651 - retention.BATCH  # the first batch ends with one of them
    names = [(entry.path.with_name(f"x{n}.mp4"), "motion" if n <= triggered else "") for n in range(650)]
    catalogue.insert([replace(entry, path=path, trigger=trigger) for path, trigger in names])
    due = [1, *range(triggered + 3, 652), *range(2, triggered + 2)]
    assert ids_of(select_due(catalogue, table(clips_max_count=1))) == due


def test_every_group_of_limits_is_read_from_the_settings():
    limits = limits_of(table(films_max_mb=3, archives_max_days=1.5, pictures_max_count=9))
    assert limits["films"].max_bytes == 3 * MB and limits["archives"].max_age_s == 129_600
    assert limits["pictures"].max_count == 9 and limits["clips"] == GroupLimits()


def test_clean_says_what_it_would_delete_and_then_deletes_just_that(catalogue, saved, tmp_path, capsys):
    for _ in range(6):
        saved()
    settings = make_settings(tmp_path, "library.clips_max_count=4")
    line = ["--set", "library.clips_max_count=4", "--config", str(settings.path), "clean", "--dry-run"]
    assert library.main(line) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and said[-1].startswith("would delete 2 files, ") and len(catalogue.find()) == 6
    line.remove("--dry-run")
    assert library.main(line) == 0
    assert capsys.readouterr().out.splitlines() == [word.replace("would delete", "deleted") for word in said]
    assert [entry.id for entry in catalogue.find()] == [6, 5, 4, 3]


def test_clean_counts_what_the_reserve_needs_too(catalogue, saved, tmp_path, monkeypatch):
    for _ in range(4):
        saved()
    size = catalogue.find()[0].bytes
    room = disk_space.DiskRoom(1000, 10**9, 1000 + 2 * size)
    monkeypatch.setattr(retention, "measure_room", lambda *_: room)
    settings = make_settings(tmp_path)
    assert [entry.id for entry in retention.select_to_clean(settings, catalogue)] == [1, 2]
    assert len(catalogue.find()) == 4


@pytest.mark.parametrize(("short", "gone"), [("recordings", [3, 4]), ("captures", [3, 4]), ("", [])])
def test_clean_makes_room_on_the_disk_of_recordings_and_on_that_of_pictures(
    catalogue, saved, settings, monkeypatch, tmp_path, short, gone
):
    """What it says before is what it does: no archive goes, and no file whose bytes another link keeps."""
    (tmp_path / "kept").hardlink_to(saved(size=MB).path)
    saved("old", kind="archive", size=MB)
    clips = [saved(size=MB).path for _ in range(4)]
    settings.paths.captures.mkdir(exist_ok=True)
    needed = {str(getattr(settings.paths, short)): 2 * MB} if short else {}

    def measure(place, _own):
        freed = sum(not path.exists() for path in clips) * MB
        return disk_space.DiskRoom(freed, 10**9, needed.get(str(place), 0))

    monkeypatch.setattr(retention, "measure_room", measure)
    assert [entry.id for entry in retention.select_to_clean(settings, catalogue)] == gone
    assert [entry.id for entry in retention.clean(settings, catalogue)] == gone
