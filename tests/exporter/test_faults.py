"""Whole or absent: disks that fail at the n-th write, kill -9, a full disk, and names that lead elsewhere."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from exporter.pictures.save import PictureSaver, SaveOptions
from shm_ring import FrameMeta
from shm_ring.formats import geometry, planes
from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from shmcam.library.manifest import JOURNAL
from shmcam.runtime.atomic_files import open_atomic
from tests.exporter.conftest import HOME, Feed, Service
from tests.machine import until
from tests.reading import number_in
from tests.shmcam.library.test_archive import traversals

FORMATS = ("jpg", "png", "npy", "tiff")
KILLS = 4
BLOCK = 4096
"""Bytes per write that the failing disk counts."""


class Disk:
    """A disk that fails at the n-th block it is asked to write: once, or from then on."""

    def __init__(self) -> None:
        self.left, self.error, self.once = 1 << 60, errno.ENOSPC, True

    def opener(self, descriptor: int) -> io.RawIOBase:
        return FailingFile(self, descriptor)

    def spend(self) -> None:
        self.left -= 1
        if self.left == 0 or (self.left < 0 and not self.once):
            raise OSError(self.error, os.strerror(self.error))


class FailingFile(io.RawIOBase):
    def __init__(self, disk: Disk, descriptor: int) -> None:
        self.disk, self.descriptor = disk, descriptor

    def write(self, data) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), BLOCK):
            self.disk.spend()  # what came before is on disk: a short write
            os.write(self.descriptor, view[start : start + BLOCK])
        return len(view)

    def flush(self) -> None:
        if not self.closed and self.disk.error == errno.EIO:
            self.disk.spend()

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self.descriptor)


@pytest.fixture
def disk(monkeypatch):
    one = Disk()
    monkeypatch.setattr(
        "shmcam.runtime.atomic_files.os.fsync", lambda _descriptor: None
    )  # the real disk's pace is not the subject
    monkeypatch.setitem(open_atomic.__wrapped__.__kwdefaults__, "opener", one.opener)
    return one


class OwnFrame:
    """A frame as Keeper sees it, without a ring."""

    def __init__(self, frame_id: int) -> None:
        self.picture = geometry("yuv420p", 448, 320)
        self.payload = np.random.default_rng(frame_id).integers(90, 130, self.picture.payload_bytes, dtype=np.uint8)
        planes(self.payload, self.picture)[1][...] = 128
        self.meta = FrameMeta(frame_id, frame_id * 10**6, 1_700_000_000 * 10**9 + frame_id, exposure_us=1000)
        self.frame_id, self.captured_ns = frame_id, self.meta.captured_ns


class OwnCamera:
    name = "cam0"

    def find_score(self, _frame_id: int) -> None:
        return None


def opens(path: Path) -> bool:
    picture = np.load(path) if path.suffix == ".npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return picture is not None and picture.size >= 448 * 320


def files(folder: Path) -> set[Path]:
    return (
        {path for path in folder.iterdir() if path.suffix != ".json" and path.is_file()} if folder.exists() else set()
    )


SOME = [*range(1, 31), *range(31, 201, 7)]


@pytest.mark.parametrize("at", [SOME, pytest.param(range(1, 201), marks=pytest.mark.slow)], ids=["some", "each"])
@pytest.mark.parametrize(
    ("error", "once"),
    [
        (errno.ENOSPC, False),
        (errno.EIO, True),
        pytest.param(errno.ENOSPC, True, marks=pytest.mark.slow),
        pytest.param(errno.EIO, False, marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_fails_at_the_nth_write_leaves_only_whole_files(tmp_path, disk, error, once, at):
    """n = 1..200, in every format: what is on disk opens, has a row, and nothing half is left behind."""
    (tmp_path / "config.toml").write_text("[library]\nfree_reserve_mb = 0\n")
    settings = Settings.load(tmp_path / "config.toml", environ={})
    captures = settings.paths.captures
    failed = 0
    with Catalogue.of(settings) as catalogue:
        saver = PictureSaver(lambda: settings, catalogue, lambda _event: None)
        for turn, number in enumerate(at):
            before = files(captures)
            disk.left, disk.error, disk.once = number, error, once
            try:
                saver.save_frame(
                    OwnCamera(), OwnFrame(number), f"20260101_000000_f{number}", SaveOptions(formats=FORMATS)
                )
            except OSError as problem:
                assert problem.errno == error
                failed += 1
            disk.left = 1 << 60
            after = files(captures)
            assert before <= after and all(opens(path) for path in after - before)
            assert not [path for path in captures.iterdir() if path.name.startswith(".")]
            if turn % 20 == 19 or number == at[-1]:
                assert catalogue.check() == []
                assert {entry.path for entry in catalogue.find()} == after
                for entry in catalogue.find():
                    catalogue.remove(entry)
        assert failed > (len(at) // 2 if not once or error == errno.EIO else -1)
        saver.save_frame(OwnCamera(), OwnFrame(999), "20260101_000000_f999", SaveOptions(formats=FORMATS))
        assert len(files(captures)) == 4 and catalogue.check() == []


def test_a_stack_on_a_failing_disk_is_whole_or_absent(tmp_path, disk):
    from exporter.stacking.stack import StackResult

    (tmp_path / "config.toml").write_text("[library]\nfree_reserve_mb = 0\n")
    settings = Settings.load(tmp_path / "config.toml", environ={})
    frame = OwnFrame(1)
    stack = StackResult(frame.payload * np.uint16(257), frame.picture, (frame.meta, frame.meta), 0)
    with Catalogue.of(settings) as catalogue:
        saver = PictureSaver(lambda: settings, catalogue, lambda _event: None)
        for number in range(1, 201, 7):
            disk.left, disk.error = number, errno.EIO
            try:
                saver.save_stack(OwnCamera(), stack, {}, SaveOptions(formats=FORMATS))
            except OSError as problem:
                assert problem.errno == errno.EIO
            assert all(opens(path) for path in files(settings.paths.captures))
        disk.left = 1 << 60
        assert catalogue.check() == [] and len(catalogue.find()) == len(files(settings.paths.captures))


FAULTY = """
import sys
from pathlib import Path

from exporter.__main__ import main
from shmcam.runtime.atomic_files import open_atomic
from tests.exporter.test_faults import Disk

class Steered(Disk):
    seen = ""

    def opener(self, descriptor):
        if (text := steer.read_text()) != self.seen:
            self.seen, (self.left, self.error, _) = text, map(int, text.split())
        return super().opener(descriptor)

steer = Path(sys.argv.pop(1))
open_atomic.__wrapped__.__kwdefaults__["opener"] = Steered().opener
sys.exit(main())
"""


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_a_running_exporter_survives_every_failing_write(tmp_path, step):
    """n = 1..200 through the real process and socket: an answer each time, earlier files intact, and it goes on."""
    service, steer = Service(tmp_path), tmp_path / "steer"
    steer.write_text(f"{1 << 60} {errno.EIO} 0")
    service.start("hub")
    command = [sys.executable, "-c", FAULTY, str(steer), "--config", str(service.config)]
    exporter = service.processes["exporter"] = subprocess.Popen(command, cwd=HOME)
    feed = Feed(service.settings, "cam0", geometry("yuv420p", 448, 320), 8)
    captures = service.settings.paths.captures
    try:
        service.ready()
        kept: set[Path] = set()
        refused = 0
        for number in range(1, 201, step):
            feed.publish(1)
            error = (errno.EIO, errno.ENOSPC)[number // step % 2]
            steer.write_text(f"{number} {error} {number}")
            reply = service.call("save jpg png npy tiff")
            refused += not reply.ok
            assert reply.ok or reply.text.startswith("NOT_SAVED\n"), reply
            assert not reply.ok or reply.data["files"] == 4
            kept, before = files(captures), kept
            assert before <= kept and all(opens(path) for path in kept - before), number
            assert not list(captures.glob(".*"))
        assert refused >= 200 // step // 3 and exporter.poll() is None
        steer.write_text(f"{1 << 60} {errno.EIO} 0")
        feed.publish(1)
        assert service.call("save jpg png npy tiff").ok and service.call("library check").ok
        with Catalogue.of(service.settings) as catalogue:
            assert {entry.path for entry in catalogue.find()} == files(captures)
    finally:
        feed.close()
        service.stop()


def test_killed_at_any_moment_no_half_file_and_no_lost_row(tmp_path):
    """kill -9 while it saves without pause: every acknowledged picture is there, opens, and is in the library."""
    service = Service(tmp_path)
    chance = random.Random(5)
    acknowledged: set[str] = set()
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            reply = service.call("save jpg png npy tiff", 2)
            if reply.ok:
                acknowledged.update(reply.data["paths"])
            else:
                time.sleep(0.05)

    service.start("hub")
    feed = Feed(service.settings, "cam0", geometry("yuv420p", 640, 360), 8)
    try:
        feed.publish(4)
        service.start("exporter")
        service.ready()
        thread = threading.Thread(target=hammer)
        thread.start()
        for _ in range(KILLS):
            wanted = len(acknowledged) + 4
            until(lambda wanted=wanted: len(acknowledged) >= wanted, 40, "saves: " + service.logs()[-2000:])
            time.sleep(chance.random() * 0.15)
            service.kill("exporter")
            captures = service.settings.paths.captures
            for path in files(captures):
                assert path.name.startswith(".") or number_in(path) == feed.next_id - 1, path
            service.start("exporter")
        stop.set()
        thread.join()
        service.ready()
        check = until(lambda: (r := service.call("library check")).text.startswith("OK") and r, 20, "agreement")
        assert check.ok
        left = [path.name for path in captures.iterdir() if path.name.startswith(".")]
        assert not left, "leftovers: " + service.logs()[-2000:]
        assert {Path(path) for path in acknowledged} <= files(captures)
        with Catalogue.of(service.settings) as catalogue:
            assert {entry.path for entry in catalogue.find()} == files(captures)
    finally:
        stop.set()
        feed.close()
        service.stop()


def can_unshare() -> bool:
    return subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="user namespaces are forbidden here")
def test_on_a_full_disk_the_oldest_go_and_protected_ones_end_in_a_clear_error(tmp_path):
    service = Service(tmp_path, "[library]\nfree_reserve_mb = 0\nfree_reserve_percent = 0\n")
    service.start("hub")
    captures = service.settings.paths.captures
    captures.mkdir(parents=True)
    feed = Feed(service.settings, "cam0", geometry("yuv420p", 640, 360), 8)
    mount = 'mount -t tmpfs -o size=4m tmpfs "$1" && shift && exec "$@"'
    command = [sys.executable, "-m", "exporter", "--config", str(service.config)]
    exporter = subprocess.Popen(["unshare", "-Urm", "sh", "-c", mount, "sh", str(captures), *command], cwd=HOME)
    try:
        feed.publish(4)
        service.ready()
        inside = Path(f"/proc/{exporter.pid}/root{captures}")
        replies = [service.call("save tiff") for _ in range(14) if feed.publish(1)]  # 0.7 MB each: six fit
        assert all(reply.ok for reply in replies), [reply.text for reply in replies]
        kept = {path.name for path in inside.glob("*.tiff")}
        assert 4 <= len(kept) <= 6 and Path(replies[-1].data["path"]).name in kept
        assert Path(replies[0].data["path"]).name not in kept
        for row in service.call("pictures limit=50").data["rows"]:
            assert service.call(f"protect {row['id']}").ok
        refused = service.call("save tiff")
        assert not refused.ok and refused.text.startswith("NOT_SAVED\n") and "MB short" in refused.text
        assert {path.name for path in inside.glob("*.tiff")} == kept and not list(inside.glob(".*"))
        assert service.call("unprotect " + str(service.call("pictures").data["rows"][-1]["id"])).ok
        assert service.call("save tiff").ok  # and it goes on
    finally:
        exporter.terminate()
        exporter.wait(30)
        feed.close()
        service.stop()


def test_more_than_200_traversal_names_are_refused_over_the_socket(shared, feed, tmp_path):
    feed.publish(2)
    until((shared.folder / "library.id").exists, 20, "the library, opened in the background")
    before = {path for path in shared.folder.rglob("*") if "logs" not in path.parts}
    for name in traversals():
        for command in ({"command": "archive", "name": name}, {"command": "save", "label": name}):
            if name == "" and "label" in command:
                continue
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(30)
                link.connect(str(shared.settings.socket_path))
                link.sendall(json.dumps(command).encode() + b"\n")
                reply = json.loads(link.makefile("rb").readline())
                assert reply["type"] == "error", (name, reply)
    assert {path for path in shared.folder.rglob("*") if "logs" not in path.parts} <= before


def test_saving_gives_way_to_live_video(shared):
    exporter = shared.processes["exporter"].pid
    usual = os.nice(0)
    lower = min(usual + 10, 19)
    assert psutil.Process(exporter).nice() == lower
    tasks = [task.read_text() for task in Path(f"/proc/{exporter}/task").glob("*/stat")]
    nices = [int(fields.rpartition(")")[2].split()[16]) for fields in tasks]
    assert set(nices) == {usual, lower}, "writing gives way, answering does not"


def test_a_library_damaged_while_the_exporter_was_down_does_not_stop_saving(shared, feed):
    feed.publish(2)
    first = shared.call("save").data["path"]
    shared.kill("exporter")
    database = shared.settings.paths.library
    database.write_bytes(os.urandom(20_000))
    for ending in ("-wal", "-shm"):  # from which SQLite would simply have mended it
        database.with_name(database.name + ending).unlink(missing_ok=True)
    shared.start("exporter")
    shared.ready()
    second = until(lambda: (r := shared.call("save")).ok and r, 20, "save: " + shared.logs()[-1500:]).data["path"]
    paths = {row["path"] for row in shared.call("pictures limit=200").data["rows"]}
    assert {first, second} <= paths and list(database.parent.glob("library.sqlite3.damaged-*"))


def test_names_that_are_not_utf_8_stop_no_answer_and_no_log(shared):
    """An unfinished archive named b"caf\\xe9" left `archives list` without an answer for ten minutes."""
    logs, archives = shared.settings.paths.logs, shared.settings.paths.archives
    strange = Path(os.fsdecode(os.fsencode(archives) + b"/caf\xe9"))
    strange.mkdir(parents=True)
    (strange / JOURNAL).touch()
    log = Path(os.fsdecode(os.fsencode(logs) + b"/caf\xe9.log"))
    log.touch()
    try:
        assert shared.call("archives list", 10).data["unfinished"] == []
        for text in (shared.call("logs nobody", 10).text, say(shared, b'{"command": "logs", "process": "nobody"}')):
            assert "caf\\xe9" in text.replace("\\\\", "\\")
        cli = [sys.executable, "-m", "shmcam.cli.main", "logs", "nobody", "--config", str(shared.config)]
        assert b"caf\\xe9" in subprocess.run(cli, capture_output=True, timeout=60, check=False).stderr
    finally:
        log.unlink()
        shutil.rmtree(strange)


def test_a_picture_is_answered_while_a_change_waits_for_who_holds_the_library(shared, feed):
    feed.publish(1)
    number = shared.call("save").data["ids"][0]
    captures = shared.settings.paths.captures
    before = set(captures.glob("*.*"))
    with (
        closing(sqlite3.connect(shared.settings.paths.library, isolation_level=None)) as other,
        socket.socket(socket.AF_UNIX) as link,
    ):
        link.settimeout(30)
        link.connect(str(shared.settings.socket_path))
        other.execute("BEGIN IMMEDIATE")
        link.sendall(b'{"command": "save", "id": 1}\n')
        until(lambda: set(captures.glob("*.*")) - before, 10, "the picture, whose row waits for half a second")
        link.sendall(b'{"command": "protect", "number": %d, "id": 2}\n' % number)
        lines = link.makefile("rb")
        assert json.loads(lines.readline())["id"] == 1
        other.execute("ROLLBACK")
        changed = json.loads(lines.readline())
    assert (changed["id"], changed["status"]) == (2, "protected")
    assert shared.call(f"unprotect {number}").ok


def say(service, line: bytes) -> str:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        link.connect(str(service.settings.socket_path))
        link.sendall(line + b"\n")
        return link.makefile("rb").readline().decode()
