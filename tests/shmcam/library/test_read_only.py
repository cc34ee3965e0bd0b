"""A library that cannot be written is read all the same; what would write says why it does not."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry, LibraryError, NoRoom, database, files, retention
from shmcam.library.errors import NotWritable
from shmcam.library.sidecar import sidecar_path_of
from streamer.api.library import Wish, find_rows
from tests.machine import PATIENCE, SHORT, until
from tests.mounts import closed, mounts, with_disk
from tests.pipeline import free_port
from tests.shmcam.library.conftest import make_settings, on_disk, saved_before_a_kill

HOME = Path(__file__).parents[3]
NOBODY = 65534
PROCESSES = {"shmcam", "capture", "analyzer", "exporter", "recorder", "streamer"}

TOLD = """
import contextlib, io, json, sys
from shmcam.cli.library import main

told = []
for words in json.loads(sys.argv[2]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["--config", sys.argv[1], *words])
    told.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""
"""`shmcam library …`, several in one process."""


def told(folder: Path, contents: Path, *commands: str) -> list[tuple[int, str, str]]:
    """What the command line says where `contents` are on a read-only disk."""
    words = json.dumps([command.split() for command in commands])
    command = with_disk(folder, contents, "ro", sys.executable, "-c", TOLD, str(folder / "config.toml"), words)
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=PATIENCE * 60)
    assert done.returncode == 0, done.stderr
    return [tuple(one) for one in json.loads(done.stdout)]


@pytest.fixture
def two(catalogue, saved) -> list[Path]:
    return [saved("clip_a.mp4").path, saved("picture_b.npy", kind="picture").path]


@mounts
@pytest.mark.parametrize("closed", [True, False])
def test_the_command_line_reads_on_a_read_only_disk_and_says_why_it_does_not_write(
    closed, catalogue, two, settings, tmp_path
):
    """Closed by its last user there are no -wal and -shm; a kill leaves them, with rows that are nowhere else."""
    if closed:
        catalogue.close()
    wal = settings.paths.library.with_name("library.sqlite3-wal")
    assert wal.exists() is not closed
    copy = shutil.copytree(settings.folder, tmp_path / "copy")
    (tmp_path / "disk").mkdir()
    answers = told(
        tmp_path / "disk", copy, "list", "show 1", "check", "protect 1", "delete 1", "check --mend", "rebuild"
    )
    reading, writing = answers[:3], answers[3:]
    assert [code for code, _, _ in reading] == [0, 0, 0], answers
    assert [line.split()[0] for line in reading[0][1].splitlines()] == ["2", "1"]
    assert "clip_a.mp4" in reading[1][1] and reading[2][1] == "2 rows, each with its file\n"
    for code, _, err in writing:
        assert code == 1
        assert err.endswith("library.sqlite3 cannot be written: the disk of library.sqlite3 is read-only\n"), err


@mounts
def test_what_cannot_be_read_on_a_read_only_disk_is_said(catalogue, two, settings, tmp_path):
    copy = shutil.copytree(settings.folder, tmp_path / "copy")
    (copy / "library.sqlite3-shm").unlink()
    (tmp_path / "disk").mkdir()
    ((code, _, err),) = told(tmp_path / "disk", copy, "list")
    assert code == 1 and "-wal: holds rows that are read only where library.sqlite3-shm can be made" in err
    for path in copy.glob("library.sqlite3*"):
        path.unlink()
    ((code, _, err),) = told(tmp_path / "disk", copy, "list")
    assert code == 1 and "is not there and cannot be made: the disk of library.sqlite3 is read-only" in err


@pytest.mark.slow
@mounts
def test_the_page_lists_a_library_on_a_read_only_disk(catalogue, two, settings, tmp_path):
    catalogue.close()
    copy = shutil.copytree(settings.folder, tmp_path / "copy")
    port, prefix, disk = free_port(), f"ro{secrets.token_hex(4)}", tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "config.toml").write_text(
        f'[ring]\nprefix = "{prefix}"\n[mjpeg_server]\nport = {port}\n[export]\nbase_dir = "disk/captures"\n'
        '[paths]\nlibrary = "disk/library.sqlite3"\nrecordings = "disk/recordings"\narchives = "disk/archives"\n'
    )
    command = [sys.executable, "-m", "streamer", "--config", str(tmp_path / "config.toml")]
    process = subprocess.Popen(with_disk(disk, copy, "ro", *command), cwd=HOME)

    def answer():
        assert process.poll() is None
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/library", timeout=30) as reply:
            return json.loads(reply.read())

    try:
        listed = until(answer, 30, "the list")
        assert [row["name"] for row in listed["rows"]] == ["picture_b.npy", "clip_a.mp4"]
        assert listed["totals"]["clips"] == {"files": 1, "bytes": 1000}
    finally:
        process.terminate()
        process.wait(PATIENCE * 10)
        for left in Path("/dev/shm").glob(f"{prefix}.*"):
            left.unlink()


@pytest.fixture
def open_to_all() -> Iterator[Settings]:
    """A library in a folder that everybody may enter, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="shmcam-", dir=SHORT))
    yield make_settings(folder)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def opened_to_look(folder: Path, *, locked: bool = True) -> None:
    """Whatever the umask: everybody may read, and nobody make or change anything."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if locked:
        (folder / "library.sqlite3.lock").chmod(0o600)
    folder.chmod(0o555)


def as_a_guest(work: Callable[[], object]) -> object:
    """What `work` returns in a process that owns nothing here."""
    here, there = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        there.send(work())

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    assert here.poll(PATIENCE * 20), "no answer"
    answer = here.recv()
    process.join(PATIENCE * 10)
    return answer


@pytest.mark.parametrize("in_use", [True, False])
def test_somebody_elses_library_can_be_looked_at(in_use, open_to_all):
    """While the service writes, and after it has stopped; in a folder that this user may not write."""
    settings = open_to_all
    catalogue = Catalogue.of(settings)
    entry = catalogue.add(on_disk(settings, "a.mp4"))
    catalogue.add(on_disk(settings, "b.npy", kind="picture"))
    if not in_use:
        catalogue.close()
    opened_to_look(settings.folder)

    def look() -> tuple[object, ...]:
        refusals = []
        with Catalogue.of(settings) as guest:
            rows = find_rows(SimpleNamespace(catalogue=guest), Wish(group="clips"))
            for work in (guest.delete, guest.protect):
                try:
                    work(entry.id)
                except LibraryError as problem:
                    refusals.append(str(problem))
            return [one.id for one in guest.find()], [row.name for row in rows.rows], guest.check(), refusals

    why = f"{settings.paths.library} cannot be written: no permission to write {settings.folder}"
    assert as_a_guest(look) == ([2, 1], ["a.mp4"], [], [why, why])
    assert entry.path.exists()
    settings.folder.chmod(0o755)
    catalogue.delete(entry.id)
    assert [one.id for one in catalogue.find()] == [2]
    catalogue.close()


def test_nothing_is_deleted_for_room_where_the_library_cannot_be_written(open_to_all):
    """A file whose row cannot go would leave the row behind."""
    settings = Settings.load(open_to_all.path, ["library.clips_max_count=1"], environ={})
    with Catalogue.of(settings) as catalogue:
        clips = [catalogue.add(on_disk(settings, f"{name}.mp4")).path for name in "abc"]
    opened_to_look(settings.folder)
    reserve = ["library.free_reserve_mb=9999999", "library.free_reserve_percent=0"]
    full = Settings.load(open_to_all.path, reserve, environ={})

    def room() -> tuple[object, str]:
        with Catalogue.of(settings) as guest:
            gone = retention.make_room(settings, guest, 1000, settings.paths.recordings, kind="clip")
            try:
                retention.make_room(full, guest, 1000, settings.paths.recordings, kind="clip")
            except NoRoom as problem:
                return gone, str(problem)
        return gone, ""

    gone, refusal = as_a_guest(room)
    assert gone == [] and f"nothing can be deleted: no permission to write {settings.folder}" in refusal
    assert all(path.exists() for path in clips)


def test_room_is_made_beside_a_library_that_can_be_neither_written_nor_read(open_to_all):
    """None was ever made on this disk; the pictures go to a good one."""
    settings = open_to_all
    catalogue = Catalogue.of(settings)
    opened_to_look(settings.folder, locked=False)

    def room() -> tuple[object, str]:
        with Catalogue.of(settings) as guest:
            gone = retention.make_room(settings, guest, 1000, Path(SHORT), kind="picture")
            try:
                guest.find()
            except LibraryError as problem:
                return gone, str(problem)
        return gone, ""

    gone, problem = as_a_guest(room)
    catalogue.close()
    assert gone == [] and "is not there and cannot be made" in problem


def test_a_disk_that_does_not_answer_is_one_that_cannot_be_written(catalogue, saved, settings, monkeypatch):
    """Its stick was pulled: looking whether the file is there fails as well."""
    with closed(errno.EIO):
        why = database.explain_not_writable(settings.paths.library)
        assert why == "the disk of library.sqlite3 does not answer: Input/output error"

    def dead(self: Path, **_more: object) -> object:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", dead)
        assert database.explain_not_writable(settings.paths.library) == why
        assert not catalogue.mounts.is_away(settings.paths.captures)
        with pytest.raises(NotWritable):
            catalogue.insert([Entry(kind="clip", camera="", path=settings.paths.captures / "x.mp4", started_utc_ns=0)])
    assert database.explain_not_writable(settings.paths.library) == ""


def test_a_database_behind_a_link_is_read_with_its_latest_rows(catalogue, saved, settings, tmp_path):
    saved("a.mp4")
    link = tmp_path / "link" / "library.sqlite3"
    link.parent.mkdir()
    link.symlink_to(settings.paths.library)
    assert settings.paths.library.with_name("library.sqlite3-wal").stat().st_size
    with closed(), Catalogue(link) as linked:
        assert [entry.path.name for entry in linked.find()] == ["a.mp4"]


def test_a_locked_library_is_the_same_error_as_one_that_cannot_be_written(catalogue, saved, settings):
    """One class says "not now" to recorder, exporter, page and command line; none of them knows SQLite."""
    entry = saved()
    with (
        closing(sqlite3.connect(settings.paths.library, isolation_level=None)) as other,
        catalogue.hurry(),
    ):
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(NotWritable, match=r"library\.sqlite3: database is locked") as caught:
            catalogue.protect(entry.id)
        assert isinstance(caught.value, OSError) and isinstance(caught.value, LibraryError)
        assert isinstance(NoRoom(28, "full"), NotWritable)
    with pytest.raises(sqlite3.ProgrammingError):  # a mistake of ours is none
        catalogue.select("id = ?", (1, 2))
    for path in HOME.glob("*/**/*.py"):
        package = path.relative_to(HOME).parts[:2]
        if package[0] in PROCESSES and package not in {("shmcam", "library"), ("shmcam", "hooks")}:
            assert "import sqlite3" not in path.read_text(), path


def test_what_cannot_be_read_keeps_its_rows_and_holds_nothing_up(open_to_all, caplog):
    """As after `sudo cp`: one folder of root's, and nothing was adopted any more, or a rebuild forgot its rows."""
    settings = open_to_all
    names = ("closed/a_20260101.mp4", "listed/b_20260101.mp4", "c_20260101.mp4", "d_20260101.mp4")
    with Catalogue.of(settings) as catalogue:
        entries = [catalogue.add(on_disk(settings, name, number=number)) for number, name in enumerate(names)]
    fresh = saved_before_a_kill(settings, "e_20260101.mp4", number=9)
    paths = [settings.folder, *settings.folder.rglob("*")]
    for path in (entries[0].path.parent, entries[2].path, sidecar_path_of(entries[2].path)):
        path.chmod(0)
    entries[1].path.parent.chmod(0o444)
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, NOBODY, NOBODY)

    def look() -> object:
        with Catalogue.of(settings) as catalogue:
            (adopted,), gone = catalogue.reconcile()
            removed = files.remove_leftovers(catalogue.folders, catalogue.owner)
            told = (adopted.path, gone, removed, catalogue.check(mend=True), catalogue.rebuild())
            return told, catalogue.find(newest_first=False), [text for text in caplog.messages if "unreadable" in text]

    told, rows, messages = as_a_guest(look)
    for path in paths:
        path.chmod(0o755)  # for whoever removes them
    assert told == (fresh.path, [], [], [], (2, 0)) and rows[:-1] == entries and rows[-1].path == fresh.path
    assert len(messages) == 1 and f"path={entries[0].path.parent} " in messages[0], "once, not at each look"
