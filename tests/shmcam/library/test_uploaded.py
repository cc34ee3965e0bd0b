"""The state "uploaded": a mark that survives a rebuild, and what retention makes of it."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
from contextlib import closing, contextmanager

import pytest

from shmcam.library import Catalogue, NoRoom, database, manifest, retention, sidecar
from shmcam.library.archive import build
from shmcam.library.disks import disk_space
from shmcam.library.errors import LibraryBusy
from shmcam.library.manifest import Span
from shmcam.library.retention import keep_newest, make_room, select_due
from shmcam.library.settings import LibrarySettings
from shmcam.library.sidecar import UPLOADED, read, sidecar_path_of
from shmcam.library.timeline import TimelineSpan
from shmcam.runtime.atomic_files import open_atomic
from tests.mounts import closed
from tests.shmcam.library.conftest import STARTED, make_settings

NAS = "nas:shmcam"


def upload(catalogue, *entries):
    for entry in entries:
        assert catalogue.mark_uploaded(entry, NAS, entry.path.stat())


def uploads(catalogue):
    return {entry.path.name: entry.uploaded for entry in catalogue.find()}


def without_the_column(settings):
    """Make the library one of the release before this state came."""
    with closing(sqlite3.connect(settings.paths.library)) as db:
        db.execute("ALTER TABLE entries DROP COLUMN uploaded")
        assert db.execute("PRAGMA user_version").fetchone()[0] == database.VERSION


@pytest.mark.parametrize("name", ["a_20260101.mp4", "a_20260101.npy"])
def test_the_mark_survives_a_lost_database_and_protection(catalogue, saved, settings, name):
    entry = saved(name)
    upload(catalogue, entry)
    catalogue.protect(entry.id)
    catalogue.close()
    settings.paths.library.unlink()
    assert uploads(catalogue) == {name: NAS} and catalogue.find()[0].protected
    assert catalogue.check() == [] and catalogue.rebuild() == (1, 0) and uploads(catalogue) == {name: NAS}


def test_a_file_that_changes_is_not_uploaded_any_more(catalogue, saved):
    """The day's keogram is written again and again under one name."""
    entry = saved("keogram_20260101.npy", kind="keogram")
    upload(catalogue, entry)
    before = entry.path.stat()
    entry.path.write_bytes(b"more columns")
    assert read(entry.path, catalogue.owner).uploaded == ""
    catalogue.add(entry)
    assert uploads(catalogue) == {entry.path.name: ""}
    assert not catalogue.mark_uploaded(catalogue.get(entry.id), NAS, before), "it changed while it was copied"
    assert uploads(catalogue) == {entry.path.name: ""}
    upload(catalogue, catalogue.get(entry.id))
    os.utime(entry.path, ns=(1, 1))
    assert [how for _, how in catalogue.check(mend=True)] and uploads(catalogue) == {entry.path.name: ""}


def test_a_deleted_file_takes_no_mark_and_leaves_no_sidecar(catalogue, saved):
    entry = saved("a_20260101.npy")
    status = entry.path.stat()
    catalogue.delete(entry.id)
    assert not catalogue.mark_uploaded(entry, NAS, status) and not sidecar_path_of(entry.path).exists()


def test_the_mark_of_an_archive_ends_with_its_next_build(catalogue, saved, settings):
    saved()
    first = build(catalogue, settings.paths.archives, "trial", Span())
    upload(catalogue, first)
    assert catalogue.rebuild() and uploads(catalogue)["manifest.json"] == NAS
    saved()
    build(catalogue, settings.paths.archives, "trial", Span())
    assert uploads(catalogue)["manifest.json"] == "" and catalogue.check() == []


@pytest.mark.parametrize(
    ("kind", "first"), [("file", "upload"), ("file", "protect"), ("archive", "upload"), ("archive", "build")]
)
def test_two_who_change_one_description_lose_nothing(catalogue, saved, settings, monkeypatch, kind, first):
    """The uploader noted a copy while somebody protected the file: the file kept one of both."""
    entry = saved("a_20260101.npy", kind="picture")
    if kind == "archive":
        entry = build(catalogue, settings.paths.archives, "trial", Span())
    works = {
        "upload": lambda: upload(catalogue, entry),
        "protect": lambda: catalogue.protect(entry.id),
        "build": lambda: build(catalogue, settings.paths.archives, "trial", Span()),
    }
    other = threading.Thread(target=works["upload" if first == "protect" else "protect"])

    @contextmanager
    def write_late(path, **options):
        """Gives the other one the time between read and write of this one, if nothing keeps it from writing."""
        if other.ident is None and path in (entry.path, sidecar_path_of(entry.path)):
            other.start()
            other.join(0.3)
        with open_atomic(path, **options) as file:
            yield file

    for module in (sidecar, manifest):
        monkeypatch.setattr(module, "open_atomic", write_late)
    works[first]()
    other.join(10)
    now = read(entry.path, catalogue.owner)
    assert now is not None and now.protected and now.uploaded == ("" if first == "build" else NAS)
    assert catalogue.check() == []


def test_a_stopped_process_that_holds_a_folder_is_told_and_nothing_is_noted(catalogue, saved, monkeypatch):
    entry = saved("a_20260101.npy")
    monkeypatch.setattr(sidecar, "LOCK_S", 0.1)
    with sidecar.lock_folder(entry.path.parent):
        for change in (lambda: catalogue.protect(entry.id), lambda: upload(catalogue, entry)):
            with pytest.raises(LibraryBusy, match="held by another process"):
                change()
    assert catalogue.get(entry.id) == entry and catalogue.check() == []
    assert catalogue.protect(entry.id).protected


def test_a_folder_that_knows_no_locks_is_written_all_the_same(catalogue, saved, monkeypatch):
    entry = saved("a_20260101.npy")
    with monkeypatch.context() as disk:
        disk.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks available")))
        sidecar.write_sidecar(entry.path, {"protected": True}, catalogue.owner)
    assert read(entry.path, catalogue.owner).protected


def test_a_full_disk_does_not_keep_the_row_from_being_marked(catalogue, saved, monkeypatch):
    """Or else nothing could be deleted, and the disk would stay full for ever."""
    entry = saved()
    monkeypatch.setattr(
        "shmcam.library.sidecar.open_atomic", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full"))
    )
    upload(catalogue, entry)
    assert uploads(catalogue) == {entry.path.name: NAS}


@pytest.mark.parametrize(
    "mark",
    ["nas:", 7, [], {}, {"to": 7}, {"to": "nas:"}, {"to": "nas:", "bytes": True, "mtime_ns": "x"}, {"to": "\ud800"}],
)
def test_a_damaged_mark_is_none(catalogue, saved, mark):
    entry = saved()
    beside = sidecar_path_of(entry.path)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), UPLOADED: mark}))
    assert read(entry.path, catalogue.owner).uploaded == ""


def test_a_library_of_the_release_before_keeps_numbers_order_and_ages(catalogue, saved, settings):
    saved("z_20260101.mp4"), saved("gone.mp4"), saved("a_20260101.mp4")
    catalogue.delete(2)
    age = catalogue.read_library_s()
    catalogue.close()
    without_the_column(settings)
    with Catalogue.of(settings) as new, Catalogue.of(settings) as other:
        assert [entry.id for entry in new.find()] == [3, 1] == [entry.id for entry in other.find()]
        assert uploads(new) == {"z_20260101.mp4": "", "a_20260101.mp4": ""} and new.read_library_s() >= age
        upload(new, new.get(1))
        assert other.get(1).uploaded == NAS
    assert not list(settings.paths.library.parent.glob("*.damaged-*"))


def test_a_library_of_the_release_before_is_read_on_a_read_only_disk(catalogue, saved, settings):
    saved()
    catalogue.close()
    without_the_column(settings)
    with closed(), Catalogue.of(settings) as new:
        assert uploads(new) == {"clip0.mp4": ""}
        assert new.read_timeline(TimelineSpan.of(STARTED, STARTED, 1, STARTED)).cameras[0].uploads == []


def test_only_what_is_uploaded_goes_by_any_limit(catalogue, saved, tmp_path, monkeypatch):
    entries = [saved(trigger="motion" if number == 2 else "rolling") for number in range(5)]
    upload(catalogue, *entries[2:4])
    for limits in ({"clips_max_count": 1}, {"clips_max_mb": 1}, {"max_total_mb": 1}, {"clips_max_days": 1}):
        monkeypatch.setattr(catalogue, "read_library_s", lambda: 10 * retention.DAY_S)
        monkeypatch.setattr(retention, "MB", 1000)
        own = LibrarySettings(free_reserve_mb=0, delete_only_uploaded=True, **limits)
        assert {entry.id for entry in select_due(catalogue, own)} == {3, 4}, limits
    assert [entry.id for entry in keep_newest(catalogue, 1, only_uploaded=True, kind="clip", trigger="rolling")] == [4]
    assert [entry.id for entry in catalogue.find()] == [5, 3, 2, 1]
    settings = make_settings(tmp_path, "library.delete_only_uploaded=true")
    room = disk_space.DiskRoom(1000, 10**9, 1000 + entries[0].bytes)
    monkeypatch.setattr(retention, "measure_room", lambda *_: room)
    assert [entry.id for entry in retention.select_to_clean(settings, catalogue)] == [3]


def test_nothing_uploaded_and_no_room_says_which_key_keeps_the_files(catalogue, saved, tmp_path, monkeypatch):
    saved(), saved()
    monkeypatch.setattr(retention, "measure_room", lambda *_: disk_space.DiskRoom(0, 10**9, 1000))
    with pytest.raises(NoRoom, match=r"not uploaded \(library\.delete_only_uploaded\)"):
        make_room(make_settings(tmp_path, "library.delete_only_uploaded=true"), catalogue, 10)
    assert len(catalogue.find()) == 2


def test_the_timeline_tells_from_when_files_are_uploaded(catalogue, saved):
    entries = [saved(started_utc_ns=STARTED + number * 3600 * 10**9, duration_s=10) for number in range(3)]
    upload(catalogue, entries[1])
    span = TimelineSpan.of(STARTED - 1, STARTED + 3 * 3600 * 10**9, 60, STARTED)
    [camera] = catalogue.read_timeline(span).cameras
    assert len(camera.footage) == 3 and [one.begin_utc for one in camera.uploads] == [camera.footage[1].begin_utc]
