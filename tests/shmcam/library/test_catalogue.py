"""The catalogue: rows that tell what the files tell, whatever happens to either."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from exporter.commands import library
from shmcam.config.settings import Settings
from shmcam.library import Catalogue, EntryProtected, LibraryError, NoSuchEntry, database, files
from shmcam.library.errors import LibraryBusy, NotWritable
from shmcam.library.retention import select_due
from shmcam.library.settings import LibrarySettings
from shmcam.library.sidecar import sidecar_path_of
from streamer.api.library import Wish, find_rows
from tests.shmcam.library.conftest import STARTED, on_disk, saved_before_a_kill

FULL = {
    "kind": "clip", "duration_s": 12.5, "first_frame": 100, "last_frame": 475, "frames": 370, "drops": 6, "score": 41.5,
    "trigger": "motion", "label": "fox-1", "companions": ("clip0.csv",),
}  # fmt: skip


def without_ids(catalogue: Catalogue) -> dict[Path, object]:
    return {entry.path: replace(entry, id=0) for entry in catalogue.find()}


def test_what_is_added_is_found_again_with_every_field(catalogue, saved):
    entry = saved(**FULL)
    assert entry.id == 1 and entry.bytes == 1000
    assert catalogue.get(1) == entry == catalogue.find(kinds=["clip"], cameras=["cam0"])[0]
    assert entry.trigger == "motion" and entry.companions == ("clip0.csv",) and entry.score == 41.5


def test_rows_are_filtered_by_span_kind_camera_trigger_and_protection(catalogue, saved):
    for number in range(6):
        saved(camera=f"cam{number % 2}", trigger="motion" if number == 3 else "", duration_s=0.5)
    second = 10**9
    assert [e.id for e in catalogue.find(newest_first=False)] == [1, 2, 3, 4, 5, 6]
    assert [e.id for e in catalogue.find(cameras=["cam1"])] == [6, 4, 2]
    assert [e.id for e in catalogue.find(since_utc_ns=STARTED + 3 * second)] == [6, 5, 4]
    assert [e.id for e in catalogue.find(since_utc_ns=STARTED + 3 * second - second // 2 + 1)][-1] == 4
    assert [e.id for e in catalogue.find(since_utc_ns=STARTED + 2 * second + second // 4)][-1] == 3  # still running
    assert [e.id for e in catalogue.find(until_utc_ns=STARTED + second)] == [2, 1]
    assert [e.id for e in catalogue.find(trigger="motion")] == [4]
    assert [e.id for e in catalogue.find(limit=2)] == [6, 5]
    catalogue.protect(2)
    assert [e.id for e in catalogue.find(protected=True)] == [2]


def test_a_group_and_a_limit_read_no_more_rows_than_they_give(catalogue, saved, monkeypatch):
    """Also for GET /library?limit=1: a library of 50,000 rows is not read to show its newest one."""
    for number in range(40):
        saved(f"n{number}.npy", kind=("picture", "stack", "timelapse", "keogram")[number % 4])
    saved("a.mp4")
    saved("b.mp4", kind="session")
    read, entry_of = [], database.entry_of
    monkeypatch.setattr(database, "entry_of", lambda row, root: read.append(row["id"]) or entry_of(row, root))
    assert [e.id for e in catalogue.find(group="pictures", limit=4)] == [40, 38, 37, 36] == read
    assert [e.id for e in catalogue.find(group="clips")] == [42, 41]
    assert len(catalogue.find(group="films")) == 10 and catalogue.find(group="archives") == []
    with pytest.raises(ValueError, match="known: pictures, archives, clips, films"):
        catalogue.find(group="x")
    context = SimpleNamespace(catalogue=catalogue)
    read.clear()
    assert [row.id for row in find_rows(context, Wish(limit=1)).rows] == [42] == read
    read.clear()
    rows = find_rows(context, Wish(group="films", limit=2))
    assert [row.id for row in rows.rows] == [39, 35] == read and rows.totals["films"].files == 10


@pytest.mark.parametrize("name", ["a_20260101.mp4", "a_20260101.npy"])
def test_adding_again_updates_the_row_and_keeps_its_marks(catalogue, saved, name):
    """In the file, too: the next rebuild unprotected it, and retention deleted it."""
    entry = saved(name, drops=0)
    catalogue.protect(entry.id)
    assert catalogue.mark_uploaded(entry, "nas:", entry.path.stat())
    again = catalogue.add(replace(entry, drops=3, id=0))
    assert (again.id, again.drops, again.protected, again.uploaded) == (entry.id, 3, True, "nas:")
    assert catalogue.get(entry.id) == again and catalogue.check() == []
    catalogue.rebuild()
    assert catalogue.get(entry.id) == again
    assert not catalogue.protect(entry.id, False).protected and catalogue.check() == [], "which a person may"
    assert not catalogue.add(replace(entry, id=0)).protected


def test_adding_again_protects_a_file_that_only_its_row_calls_protected(catalogue, saved):
    """As that of a video whose sidecar somebody removed."""
    entry = saved("a_20260101.mp4")
    catalogue.protect(entry.id)
    sidecar_path_of(entry.path).unlink()
    assert catalogue.add(replace(entry, id=0)).protected and catalogue.check() == []


def test_a_file_that_is_not_there_is_not_added(catalogue, settings):
    entry = on_disk(settings, "gone.mp4")
    entry.path.unlink()
    with pytest.raises(FileNotFoundError):
        catalogue.add(entry)
    assert catalogue.find() == []


def test_delete_removes_file_companions_sidecar_and_row(catalogue, saved, settings):
    entry = saved("session_20260101_000000/a.mp4", companions=("a.csv",))
    (entry.path.parent / "a.csv").write_text("x")
    assert entry.path.with_name("a.mp4.json").exists()
    catalogue.delete(entry.id)
    assert catalogue.find() == [] and list(settings.paths.recordings.iterdir()) == []
    with pytest.raises(NoSuchEntry, match="no entry 1 in the library"):
        catalogue.delete(entry.id)


def test_a_protected_file_is_not_deleted_until_it_is_unprotected(catalogue, saved):
    entry = saved()
    catalogue.protect(entry.id)
    with pytest.raises(EntryProtected, match="unprotect 1 first"):
        catalogue.delete(entry.id)
    assert entry.path.exists()
    catalogue.protect(entry.id, False)
    catalogue.delete(entry.id)
    assert not entry.path.exists()


def test_a_row_that_points_outside_the_library_deletes_nothing(catalogue, saved, tmp_path):
    """A damaged or forged row must never turn retention into `rm`."""
    saved("picture.npy", kind="picture")
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    entry = replace(saved(), path=victim)
    with pytest.raises(LibraryError, match="not inside"):
        catalogue.remove(entry)
    with pytest.raises(LibraryError, match="not inside"):
        catalogue.remove(replace(entry, path=catalogue.folders[0] / ".." / "victim.txt"))
    assert victim.exists()


def test_rebuilt_from_the_files_alone_it_equals_what_it_was(catalogue, saved, settings):
    saved(**FULL)
    for number in range(1, 20):
        saved(f"n{number}.npy", kind="stack", trigger="save", frames=16, first_frame=number, last_frame=number + 16)
    catalogue.protect(7)
    catalogue.protect(1)
    before = without_ids(catalogue)
    catalogue.close()
    for ending in ("", "-wal", "-shm", ".lock"):
        Path(f"{settings.paths.library}{ending}").unlink(missing_ok=True)
    with Catalogue.of(settings) as fresh:
        assert fresh.find() == []
        assert fresh.rebuild() == (20, 0)
        assert without_ids(fresh) == before
        assert fresh.check() == []


def test_a_film_that_is_still_growing_is_not_adopted(catalogue, settings):
    on_disk(settings, "running_20260101.mp4")
    assert catalogue.reconcile() == ([], [])


def test_reconcile_forgets_rows_whose_file_is_gone_and_keeps_the_rest(catalogue, saved):
    first, second = saved(), saved()
    first.path.unlink()
    adopted, gone = catalogue.reconcile()
    assert ([e.id for e in adopted], [e.id for e in gone]) == ([], [first.id])
    assert [e.id for e in catalogue.find()] == [second.id]


@pytest.mark.parametrize("mount_point", ["missing", "empty"])
def test_reconcile_keeps_the_rows_of_a_disk_that_is_not_mounted(mount_point, catalogue, saved, settings):
    """A disk that mounts late must not lose its rows: retention would then know, and delete, only what is newest."""
    first, second = saved(), saved()
    picture, gone_picture = saved("a.png", kind="picture"), saved("b.png", kind="picture")
    gone_picture.path.unlink()
    folder, disk = settings.paths.recordings, settings.paths.recordings.with_name("disk")
    folder.rename(disk)
    if mount_point == "empty":
        folder.mkdir()
    assert [e.id for e in catalogue.reconcile()[1]] == [gone_picture.id]
    assert [e.id for e in catalogue.find(newest_first=False)] == [first.id, second.id, picture.id]
    assert library.reconcile_if_needed(catalogue).data["gone"] == 0 and folder in catalogue.away
    if mount_point == "empty":
        folder.rmdir()
    disk.rename(folder)
    first.path.unlink()
    assert library.reconcile_if_needed(catalogue).data["gone"] == 1 and folder not in catalogue.away
    assert [e.id for e in catalogue.find(newest_first=False)] == [second.id, picture.id]


MOUNTED = """
import sys
import tracemalloc
from pathlib import Path
from shmcam.library import Catalogue
from shmcam.cli.library import main
from shmcam.library.retention import make_room
from shmcam.config.settings import Settings
from tests.shmcam.library.conftest import on_disk, saved_before_a_kill

settings = Settings.load(Path(sys.argv[1]), environ={})
captures = settings.paths.captures
import os, subprocess
def shell(line): subprocess.run(line, shell=True, check=True)
shell(f"mkdir -p {captures} && mount -t tmpfs -o size=4m disk {captures}")
with Catalogue.of(settings) as catalogue:
    kept = [catalogue.add(on_disk(settings, f"p{n}.npy", kind="picture", started_utc_ns=n + 1)) for n in range(3)]
    make_room(settings, catalogue, 10)  # sees that it is a disk, as before the second file of a new one
    shell(f"mkdir -p {captures}.aside && mount --bind {captures} {captures}.aside && umount {captures}")
    stray = saved_before_a_kill(settings, "stray.npy", kind="picture", started_utc_ns=9)
    assert [entry.path for entry in catalogue.reconcile()[0]] == [stray.path], "what was written there is adopted"
    assert len(catalogue.find()) == 4 and catalogue.away[0] == captures, catalogue.away
    findings = catalogue.check(mend=True)
    assert [how.split(":")[0] for _, how in findings] == ["away"] * 3 and len(catalogue.find()) == 4, findings
    assert catalogue.rebuild() == (1, 3)
    try:
        make_room(settings, catalogue, 10)
    except OSError as problem:
        assert "not mounted" in str(problem) and str(captures) in str(problem), problem
    else:
        raise AssertionError("the mount point was written into")
    shell(f"mount --bind {captures}.aside {captures}")
    make_room(settings, catalogue, 10)
    assert [entry.path for entry in catalogue.reconcile()[1]] == [stray.path]
    assert {entry.path for entry in catalogue.find()} == {entry.path for entry in kept}
    assert captures not in catalogue.away
    shell(f"umount {captures}")
    assert main(["--config", sys.argv[1], "rebuild"]) == 0 and len(catalogue.find()) == 4
    assert main(["--config", sys.argv[1], "rebuild", "--accept"]) == 0
    assert [entry.path for entry in catalogue.find()] == [stray.path]
    make_room(settings, catalogue, 10)
"""


def can_mount() -> bool:
    return subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="user namespaces are forbidden here")
def test_a_file_in_the_mount_point_of_a_disk_that_is_away_makes_no_row_forgotten(settings):
    """Somebody saw his library emptied: one clip had been written below the mount point before the disk came."""
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", MOUNTED, str(settings.path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "kept 3 rows" in done.stdout and "--accept" in done.stdout


def test_a_rebuild_makes_no_file_younger_and_changes_no_order(catalogue, saved, settings, monkeypatch):
    """Each rebuild began all ages anew: with one a week nothing reached `max_days`; wrong clocks changed the order."""
    clock = database.read_clock()
    old, new = saved(), saved(started_utc_ns=STARTED - 10**15)  # the clock was wrong while it was saved
    catalogue.protect(new.id)
    with sqlite3.connect(catalogue.path) as db:
        db.execute("UPDATE entries SET protected = 1, camera = 'cam7' WHERE id = ?", (old.id,))
    later = replace(clock, up_s=clock.up_s + 5 * 86_400, wall_s=clock.wall_s + 5 * 86_400)
    monkeypatch.setattr(database, "read_clock", lambda: later)
    assert catalogue.rebuild() == (2, 0)
    assert catalogue.find(newest_first=False) == [old, replace(new, protected=True)]
    assert [entry.id for entry in select_due(catalogue, LibrarySettings(clips_max_days=3))] == [old.id]


@pytest.mark.parametrize("page", [1, 2, 200])
def test_check_tells_and_mends_rows_that_differ_from_their_files(catalogue, saved, monkeypatch, page):
    monkeypatch.setattr("shmcam.library.catalogue.PAGE", page)
    one, two, three = saved(), saved(), saved()
    two.path.unlink()
    with sqlite3.connect(catalogue.path) as db:
        db.execute("UPDATE entries SET protected = 1, drops = 99 WHERE id = ?", (three.id,))
    assert [(e.path, how) for e, how in catalogue.check()] == [
        (two.path, "no file"),
        (three.path, "differs from its file"),
    ]
    catalogue.check(mend=True)
    assert catalogue.check() == [] and catalogue.get(three.id) == three and catalogue.get(one.id) == one


def test_comparing_with_the_disk_never_holds_all_rows(catalogue, settings):
    """The start of the exporter took 119 MB for a year's 100,000 pictures, on a board that has 512."""

    def measure(work: Callable[[], object]) -> int:
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    for number in range(1000):
        saved_before_a_kill(settings, f"20260101_000000_f{number}.npy", 1, number, kind="picture")
    assert len(catalogue.reconcile()[0]) == 1000
    all_rows = measure(catalogue.find)
    assert measure(catalogue.reconcile) < 0.9 * all_rows and measure(catalogue.check) < 0.9 * all_rows


@pytest.mark.parametrize("damage", ["garbage", "header", "page", "empty-of-tables", "truncated", "version"])
def test_a_damaged_database_is_set_aside_and_rebuilt_and_no_file_is_lost(damage, catalogue, saved, settings):
    for _ in range(80):
        saved()
    catalogue.protect(5)
    before = without_ids(catalogue)
    catalogue.close()
    path = settings.paths.library
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    data = bytearray(path.read_bytes())
    match damage:
        case "garbage":
            data = bytearray(os.urandom(8192))
        case "header":
            data[:16] = bytes(16)
        case "page":
            data[4096:] = os.urandom(len(data) - 4096)
        case "truncated":
            del data[len(data) // 2 :]
        case "version":
            data[60:64] = (77).to_bytes(4, "big")
        case "empty-of-tables":
            path.unlink()
            sqlite3.connect(path).execute("PRAGMA user_version = 1").connection.close()
            data = bytearray(path.read_bytes())
    path.write_bytes(data)
    with Catalogue.of(settings) as again:
        new = again.add(on_disk(settings, "new.mp4", number=500))
        assert without_ids(again) == {**before, new.path: replace(new, id=0)}
    assert list(path.parent.glob("library.sqlite3.damaged-*"))


def test_two_connections_survive_that_the_file_is_set_aside_under_one_of_them(catalogue, saved, settings):
    """Without the inode check the second process would go on writing into the file that was renamed away."""
    saved()
    with Catalogue.of(settings) as other:
        assert len(other.find()) == 1
        catalogue._database.set_aside("test")
        other.add(on_disk(settings, "later.mp4", number=9))
        assert len(catalogue.find()) == len(other.find()) == 2


def test_a_thread_in_a_hurry_holds_no_other_thread_up(catalogue, saved):
    """While `make_room` deleted hundreds of files, `library` and `protect` waited, and so did the clip writer."""
    entry = saved()

    def read_timeouts() -> tuple[str, int]:
        timeout_ms = catalogue.write(lambda db: db.execute("PRAGMA busy_timeout").fetchone()[0])
        return catalogue.protect(entry.id).path.name, timeout_ms

    with ThreadPoolExecutor(1) as pool, catalogue.hurry():
        with catalogue.hurry():
            assert pool.submit(read_timeouts).result(10) == (entry.path.name, 10_000)
        assert read_timeouts()[1] == 500
    assert read_timeouts()[1] == 10_000


@pytest.mark.parametrize("is_removed", [True, False])
def test_who_is_in_a_hurry_leaves_the_repair_to_others(catalogue, saved, settings, is_removed):
    """The recorder rebuilt a library of 100,000 files before its next frame, if it noticed the damage first."""
    entries = [saved() for _ in range(3)]
    with Catalogue.of(settings) as other:
        assert len(other.find()) == 3
        if is_removed:
            for path in settings.paths.library.parent.glob("library.sqlite3*"):
                path.unlink()
        else:
            other.close()
            sqlite3.connect(settings.paths.library).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
            settings.paths.library.write_bytes(os.urandom(8192))
        with other.hurry():
            new = other.add(on_disk(settings, "new.mp4", number=7))
            assert [entry.path for entry in other.find()] == [new.path] and other.missed.is_set()
        library.reconcile_if_needed(catalogue)
        assert {entry.path for entry in catalogue.find()} == {new.path, *(entry.path for entry in entries)}


def test_who_is_in_a_hurry_waits_half_a_second_for_another_thread(catalogue, saved):
    saved()
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        catalogue._database.read(lambda _: (taken.set(), done.wait(30)))

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert taken.wait(10)
        with catalogue.hurry(), pytest.raises(LibraryBusy, match="another thread"):
            catalogue.find()
        done.set()
        held.result(10)


def _add_many(config: Path, worker: int, count: int) -> None:
    settings = Settings.load(config, environ={})
    with Catalogue.of(settings) as catalogue:
        for number in range(count):
            catalogue.add(on_disk(settings, f"w{worker}_{number}.mp4", 10, number))


def test_several_processes_write_at_once_and_no_row_is_lost(settings):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_many, args=(settings.path, worker, 40)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with Catalogue.of(settings) as catalogue:
        assert len(catalogue.find()) == 160 and catalogue.check() == []


KILLED = """
import sys
import tracemalloc
from pathlib import Path
from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from tests.shmcam.library.conftest import on_disk
settings = Settings.load(Path(sys.argv[1]), environ={})
with Catalogue.of(settings) as catalogue:
    print("ready", flush=True)
    for number in range(100_000):
        entry = catalogue.add(on_disk(settings, f"{sys.argv[2]}_{number}.npy", 10, number, kind="picture"))
        print(entry.id, flush=True)
"""


def test_killed_at_any_point_no_row_and_no_file_is_lost(settings):
    """Every row whose number was told is there afterwards, every file has a row, every row a file."""
    told = 0
    for round_ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(settings.path), f"r{round_}"], stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        for _ in range(7 * round_ + 1):
            told += bool(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().count(b"\n")
        process.wait()
        process.stdout.close()
        with Catalogue.of(settings) as catalogue:
            catalogue.reconcile()
            assert catalogue.check() == []
            assert len(catalogue.find()) >= told
    files.remove_leftovers([settings.paths.captures], catalogue.owner)
    assert not list(settings.paths.captures.glob(".*"))


def test_a_connection_that_became_read_only_is_given_up(catalogue, saved):
    """Opened while the disk was read-only for a second, SQLite stayed read-only: no row was written until a restart."""
    saved()
    own = catalogue._database
    own._connection.close()
    own._connection = sqlite3.connect(f"file:{own.path}?mode=ro", uri=True, isolation_level=None)
    own._connection.row_factory = sqlite3.Row
    with pytest.raises(NotWritable, match="readonly"):
        catalogue.protect(1)
    assert catalogue.protect(1).protected
