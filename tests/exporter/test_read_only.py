"""A disk that turns read-only under the exporter: it says so, lives, and goes on when the disk can be written again."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shm_ring.formats import geometry
from shmcam.control.messages import Reply
from shmcam.library import Catalogue
from tests.exporter.conftest import HOME, Feed, Service
from tests.exporter.test_faults import files, opens
from tests.machine import until
from tests.mounts import mounts, remount, with_disk

IMPATIENT = """
import sys

from exporter import loop
from exporter.__main__ import main

loop.PLACES_LOOK_S = 0.3
sys.exit(main())
"""
READ_ONLY = "Read-only file system"


@contextmanager
def exporting(tmp_path: Path, contents: Path, how: str, toml: str):
    """Hub, exporter and a camera; the exporter finds a disk of its own at `disk`."""
    service, disk = Service(tmp_path, toml), tmp_path / "disk"
    disk.mkdir()
    service.start("hub")
    command = with_disk(disk, contents, how, sys.executable, "-c", IMPATIENT, "--config", str(service.config))
    exporter = service.processes["exporter"] = subprocess.Popen(command, cwd=HOME)
    feed = Feed(service.settings, "cam0", geometry("yuv420p", 448, 320), 8)
    try:
        feed.publish(2)
        service.ready()
        yield service, exporter, feed, Path(f"/proc/{exporter.pid}/root{disk}")
    finally:
        feed.close()
        service.stop()


def rows(service: Service) -> list[Path]:
    return sorted(Path(row["path"]) for row in service.call("pictures").data["rows"])


@contextmanager
def saving(service: Service, feed: Feed, line: str = "save jpg png npy") -> Iterator[list[Reply]]:
    """Somebody saves without pause; what the exporter answers."""
    replies: list[Reply] = []
    stop = threading.Event()

    def save() -> None:
        while not stop.wait(0.02):
            feed.publish(1)
            replies.append(service.call(line))

    thread = threading.Thread(target=save)
    thread.start()
    try:
        until(lambda: len(replies) > 2, 30, "saves")
        yield replies
    finally:
        stop.set()
        thread.join()


def rows_are_files(service: Service, inside: Path) -> None:
    """Nothing half, no file without row and no row without file."""
    kept = files(inside)
    assert service.call("library check").ok
    with Catalogue.of(service.settings) as catalogue:
        assert {entry.path.name for entry in catalogue.find()} == {path.name for path in kept}
    assert all(opens(path) for path in kept if path.suffix != ".mp4") and not list(inside.glob(".*"))


@pytest.mark.slow
@mounts
def test_a_disk_that_turns_read_only_in_the_middle_of_saving_is_told_and_used_again(tmp_path):
    """Whatever had been saved has its row, what was refused has none, and nothing half is left."""
    (tmp_path / "before").mkdir()
    toml = '[export]\nbase_dir = "disk"\n'
    with exporting(tmp_path, tmp_path / "before", "rw", toml) as (service, exporter, feed, inside):
        with saving(service, feed) as replies:
            for _ in range(2):
                until(lambda: remount(exporter.pid, tmp_path / "disk", "ro"), 30, "between two files")
                until(lambda: not replies[-1].ok, 30, "a refusal")
                assert service.call("pictures").ok
                assert remount(exporter.pid, tmp_path / "disk", "rw")
                until(lambda: replies[-1].ok, 30, "to save again")
        refused = [reply.text for reply in replies if not reply.ok]
        assert all(text.startswith("NOT_SAVED\n") and READ_ONLY in text for text in refused), refused
        assert len(refused) >= 2 and exporter.poll() is None
        rows_are_files(service, inside)


@mounts
def test_pictures_are_saved_beside_a_library_that_cannot_be_written_and_get_their_rows_later(tmp_path):
    """The card is at its end, the stick with the pictures is not."""
    (tmp_path / "before").mkdir()
    with Catalogue(tmp_path / "before" / "library.sqlite3") as empty:
        assert empty.find() == []
    toml = 'library = "disk/library.sqlite3"\n'
    with exporting(tmp_path, tmp_path / "before", "ro", toml) as (service, exporter, feed, _inside):
        reply = service.call("save")
        saved = Path(reply.data["path"])
        assert reply.ok and reply.data["ids"] == [0] and f"{saved} (not in the library yet)" in reply.text
        assert opens(saved) and rows(service) == []
        reply = service.call("library rebuild")
        assert not reply.ok and "cannot be written: the disk of library.sqlite3 is read-only" in reply.text
        until(lambda: "library cannot be written" in service.logs(), 20, service.logs())
        assert remount(exporter.pid, tmp_path / "disk", "rw")
        until(lambda: rows(service) == [saved], 20, lambda: service.logs()[-2000:])
        assert service.call("library check").ok
        feed.publish(1)
        reply = service.call("save")
        assert reply.ok and reply.data["ids"] == [2] and "not in the library" not in reply.text
        number = reply.data["ids"][0]
        assert exporter.poll() is None and service.call(f"protect {number}").ok
