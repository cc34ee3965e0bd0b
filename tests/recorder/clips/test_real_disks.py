"""A real ext4 on a loop device: it turns read-only by an error of its own, is pulled, or answers with EIO."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from tests.machine import until
from tests.recorder.rig import numbers

pytestmark = pytest.mark.slow
MARKER = ".shmcam-disk"


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class LoopDisk:
    """A sparse image in a tmpfs of its own, mounted as ext4 wherever it is wanted."""

    def __init__(self, below: Path, folder: Path) -> None:
        self.below, self.folder, self.image = below, folder, below / "image"
        below.mkdir()
        folder.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=24m", "none", str(below))
        with self.image.open("wb") as file:
            file.truncate(64 << 20)
        run("mkfs.ext4", "-q", "-F", str(self.image))
        self.plug_in()
        (folder / MARKER).touch()

    def plug_in(self) -> None:
        run("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.folder))

    def pull(self) -> None:
        run("umount", "-l", str(self.folder))

    @property
    def device(self) -> str:
        return next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if self._is_ours(line))

    def fail(self) -> None:
        """What ext4 does when it finds itself damaged: it lets nobody write any more."""
        (Path("/sys/fs/ext4") / Path(self.device).name / "trigger_fs_error").write_text("shmcam's test")

    def wear_out(self) -> None:
        """From now on the device answers writes to fresh blocks with EIO: nothing is left to back them."""
        with (self.below / "others").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass

    def close(self) -> None:
        while any(self._is_ours(line) for line in Path("/proc/mounts").read_text().splitlines()):
            self.pull()
        run("umount", "-l", str(self.below))

    def _is_ours(self, line: str) -> bool:
        return line.split()[1] == str(self.folder)


def missing() -> str:
    """What a test needs that is not here; empty: nothing."""
    if os.geteuid() != 0:
        return "needs root to mount a loop device"
    if lacking := [tool for tool in ("mkfs.ext4", "mount", "losetup") if shutil.which(tool) is None]:
        return f"needs {', '.join(lacking)}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            LoopDisk(Path(folder) / "below", Path(folder) / "disk").close()
        except (OSError, subprocess.CalledProcessError) as error:
            return f"this host mounts no loop device: {error}"
    return ""


def loop_disk(folder: Path) -> Iterator[LoopDisk]:
    """A disk of one test's own, at `folder`/disk; skips where there can be none."""
    if why := missing():
        pytest.skip(why)
    one = LoopDisk(folder / "below", folder / "disk")
    yield one
    one.close()


@pytest.fixture
def disk(tmp_path):
    yield from loop_disk(tmp_path)


@pytest.fixture
def filmed(rig, disk):
    """A recorder that records onto the disk, and a hub to ask."""
    made = rig(auto_start=True, disk_marker=MARKER, fragment_s=0.2)
    made.write_config(paths={"recordings": str(disk.folder)})
    made.recordings = disk.folder
    made.start_hub()
    camera = made.camera(size=(320, 180), slots=256, noise=60)
    camera.begin_filming()
    process = made.start()
    made.ready()
    until(lambda: "recording began" in made.log(), 20, made.log)
    made.recorded(20)
    yield made, process
    if process.poll() is None:
        made.stop(process)  # or its open file would keep the disk


def says(made, text, seconds=20):
    until(lambda: text in made.log(), seconds, made.log()[-3000:])
    status = until(lambda: (reply := made.ask("record status")).status == "waiting" and reply, 10)
    assert not status.ok and text in status.text, status


def goes_on(made):
    until(lambda: "recording again" in made.log(), 40, made.log()[-3000:])
    file = until(lambda: made.ask("record status").data.get("file"), 10)
    made.recorded(6)
    reply = made.ask("record stop")
    assert reply.ok and reply.data["file"] == file
    ids = numbers(Path(file))
    assert len(ids) == reply.data["frames"] > 5 and ids == list(range(ids[0], ids[0] + len(ids)))
    until(lambda: not made.clips("*.part"), 10, "what the disk refused to rename is adopted")
    with Catalogue.of(Settings.load(made.folder / "config.toml", environ={})) as library:
        until(lambda: sorted(entry.path for entry in library.find()) == made.clips(), 10, "rows = files")
    assert len(made.clips()) == 2


def plays(clip):
    ids = numbers(clip)
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    return len(ids)


def test_a_disk_that_turns_read_only_under_an_open_file_is_reported_and_used_again(filmed, disk):
    """An SD card at its end; somebody repairs it and mounts it again."""
    made, process = filmed
    disk.fail()
    says(made, "Read-only file system")
    (left,) = made.clips("*.mp4.part")
    assert plays(left) > 10, "what was synced plays where it lies"
    assert f"what is whole stays in {left.name}" in made.log()
    disk.pull()
    subprocess.run(["e2fsck", "-p", "-f", str(disk.image)], check=False, capture_output=True)
    disk.plug_in()
    goes_on(made)
    assert process.poll() is None and plays(left.with_suffix("")) > 10


def test_a_usb_disk_that_is_pulled_while_recording_leaves_its_mount_point_empty(filmed, disk):
    made, _ = filmed
    disk.pull()
    says(made, f"{MARKER} is missing: the disk is not mounted")
    assert "unmounted while it was written" in made.log()
    assert list(disk.folder.iterdir()) == [], "nothing goes onto the card below"
    disk.plug_in()
    goes_on(made)


def test_a_device_that_answers_with_errors_is_reported_and_the_recorder_lives(filmed, disk):
    made, process = filmed
    disk.wear_out()
    until(lambda: "not recording reason=" in made.log(), 40, made.log())
    status = until(lambda: (reply := made.ask("record status")).status == "waiting" and reply, 10)
    assert not status.ok and ("error" in status.text.lower() or "Read-only" in status.text), status
    assert made.ask("record stop").status in ("recording_stopped", "not_recording")
    assert process.poll() is None and made.ask("record status").status == "idle"
