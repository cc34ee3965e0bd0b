"""A real ext4 under the exporter: remounted read-only while it saves, or read-only by an error of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.films.film import SYNC_FRAMES
from shm_ring.formats import geometry
from shmcam.library import Catalogue
from tests.exporter.conftest import Feed, Service, running
from tests.exporter.test_read_only import READ_ONLY, rows_are_files, saving
from tests.machine import until
from tests.recorder.clips.test_real_disks import LoopDisk, loop_disk, run

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path) -> Iterator[LoopDisk]:
    yield from loop_disk(tmp_path)


@pytest.fixture
def exporting(tmp_path, disk, request) -> Iterator[tuple[Service, Feed]]:
    """Pictures go onto the disk; and, as the test says, what else is to be."""
    (tmp_path / "service").mkdir()
    for service in running(tmp_path / "service", request.param.format(disk=disk.folder)):
        feed = Feed(service.settings, "cam0", geometry("yuv420p", 448, 320), 8)
        feed.publish(2)
        yield service, feed
        feed.close()


def refused(replies, text=READ_ONLY):
    until(lambda: not replies[-1].ok, 40, "a refusal")
    assert replies[-1].text.startswith("NOT_SAVED\n") and text in replies[-1].text, replies[-1]


def repaired(disk: LoopDisk) -> None:
    """As somebody does who finds it read-only by an error: it is taken off, checked, and mounted again."""
    disk.pull()
    subprocess.run(["e2fsck", "-p", "-f", str(disk.image)], check=False, capture_output=True)
    disk.plug_in()


@pytest.mark.parametrize("exporting", ['[export]\nbase_dir = "{disk}/captures"\n'], indirect=True)
def test_a_disk_that_is_remounted_read_only_while_it_is_saved_to(exporting, disk):
    service, feed = exporting
    with saving(service, feed, "save jpg") as replies:
        for _ in range(5):
            command = ["mount", "-o", "remount,ro", str(disk.folder)]
            until(lambda c=command: subprocess.run(c, capture_output=True).returncode == 0, 40, "between two files")
            refused(replies)
            assert service.call("pictures").ok and service.call("clips").ok
            run("mount", "-o", "remount,rw", str(disk.folder))
            until(lambda: replies[-1].ok, 40, "to save again")
    assert service.processes["exporter"].poll() is None
    rows_are_files(service, disk.folder / "captures")


@pytest.mark.parametrize(
    "exporting", ['[export]\nbase_dir = "{disk}/captures"\ntimelapse_interval_s = 0.1\n'], indirect=True
)
def test_a_disk_that_finds_itself_damaged_under_pictures_and_a_running_film(exporting, disk):
    service, feed = exporting

    def film():
        return service.call("timelapse status").data["cameras"]["cam0"]

    with saving(service, feed, "save jpg") as replies:
        until(lambda: film()["frames"] > 2 * SYNC_FRAMES, 60, service.logs)  # what a sync has seen survives
        disk.fail()
        refused(replies)
        until(lambda: READ_ONLY in film()["trouble"], 30, lambda: f"{film()} {service.logs()[-2000:]}")
        assert service.call("pictures").ok
        done = len(replies)
        disk.pull()
        until(lambda: len(replies) > done + 3, 30, "answers")
        refused(replies, "its disk is not mounted")
        subprocess.run(["e2fsck", "-p", "-f", str(disk.image)], check=False, capture_output=True)
        disk.plug_in()
        until(lambda: replies[-1].ok, 40, "to save again")
        until(lambda: film()["frames"] and not film()["trouble"], 90, service.logs)
    assert service.processes["exporter"].poll() is None
    assert service.call("timelapse stop").ok
    captures = disk.folder / "captures"
    until(lambda: not list(captures.glob("*.mp4.part")), 40, "the film's end")
    until(lambda: len(list(captures.glob("*.mp4"))) > 1, 40, "the film that was given up is adopted")
    until(lambda: service.call("library check").ok, 40, lambda: service.call("library check").text)
    rows_are_files(service, captures)


EVERYTHING = 'library = "{disk}/library.sqlite3"\n[export]\nbase_dir = "{disk}/captures"\n'


@pytest.mark.parametrize("exporting", [EVERYTHING], indirect=True)
def test_a_disk_that_finds_itself_damaged_under_the_library(exporting, disk):
    """Its rows can still be read; after a repair and a restart every picture that was acknowledged is there."""
    service, feed = exporting
    with saving(service, feed, "save jpg") as replies:
        until(lambda: len(replies) > 10, 40, "saves")
        disk.fail()
        refused(replies)
        listed = service.call("pictures limit=5")
        assert listed.ok and len(listed.data["rows"]) == 5, listed
        number = listed.data["rows"][0]["id"]
        for word in ("protect", "delete"):
            answer = service.call(f"{word} {number}")
            assert not answer.ok and answer.text.startswith("ERROR: "), answer
    assert service.processes["exporter"].poll() is None
    acknowledged = {Path(path) for reply in replies if reply.ok for path in reply.data["paths"]}
    service.kill("exporter")
    repaired(disk)
    service.start("exporter")
    service.ready()
    until(lambda: service.call("library check").ok, 40, lambda: service.call("library check").text)
    with Catalogue.of(service.settings) as catalogue:
        assert acknowledged <= {entry.path for entry in catalogue.find()}
    feed.publish(1)
    assert service.call("save").ok
    rows_are_files(service, disk.folder / "captures")
