"""Real disks without hard links, permissions or locks, or behind a network: FAT, exFAT, NTFS, SFTP.

As root, with FUSE and loop devices, after
apt-get install fusefat dosfstools exfat-fuse exfatprogs ntfs-3g sshfs openssh-sftp-server
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recorder.clips.clip import ClipPaths
from recorder.clips.clip_file import ClipFile
from shmcam.cli.run.start_checks import find_path_problem
from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry, NoRoom, sidecar
from shmcam.library.errors import LibraryBusy, NotWritable
from shmcam.library.retention import make_room
from shmcam.runtime.atomic_files import open_atomic, sweep
from tests.machine import SHORT, until
from tests.recorder import film
from tests.recorder.rig import numbers
from tests.shmcam.library.conftest import STARTED

SFTP_SERVER = "/usr/lib/openssh/sftp-server"
TOOLS = {
    "fat": ("fusefat", "mkfs.vfat"),
    "exfat": ("mount.exfat-fuse", "mkfs.exfat", "losetup"),
    "ntfs": ("ntfs-3g", "mkfs.ntfs"),
    "sshfs": ("sshfs", SFTP_SERVER),
}


class ForeignDisk:
    """A disk of one kind; `plug_in` as often as it was `pull`ed, `close` at the end."""

    def __init__(self, kind: str, below: Path) -> None:
        self.kind, self.below, self.folder = kind, below, below / "disk"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._loop = ""
        self.folder.mkdir(parents=True)
        (below / "far").mkdir()
        image = below / "image"
        image.write_bytes(b"")
        os.truncate(image, 64 << 20)
        if kind != "sshfs":
            quietly(
                {"fat": ["-F", "32"], "ntfs": ["-q", "-F"]}.get(kind, []),
                f"mkfs.{'vfat' if kind == 'fat' else kind}",
                image,
            )
        if kind == "exfat":
            self._loop = quietly([], "losetup", "-f", "--show", image)
        self.plug_in()

    def plug_in(self) -> None:
        image = self.below / "image"
        if self.kind == "fat":
            self._run("fusefat", "-f", "-o", "rw+", image, self.folder)
        elif self.kind == "exfat":
            quietly([], "mount.exfat-fuse", self._loop, self.folder)
        elif self.kind == "ntfs":
            quietly([], "ntfs-3g", image, self.folder)
        else:
            (asked, ask), (answered, answer) = os.pipe(), os.pipe()
            self._run(SFTP_SERVER, stdin=asked, stdout=answer)
            options = "slave,disable_hardlink"
            self._run("sshfs", "-f", "-o", options, f"nas:{self.below}/far", self.folder, stdin=answered, stdout=ask)
            for end in (asked, ask, answered, answer):
                os.close(end)
        until(self.folder.is_mount, 10, "mounted")

    def pull(self) -> None:
        quietly([], "umount", self.folder)
        until(lambda: not self.folder.is_mount(), 10, "unmounted")
        for process in self._processes:
            process.terminate()
            process.wait(10)
        self._processes.clear()

    def close(self) -> None:
        if self.folder.is_mount():
            subprocess.run(["umount", "-l", self.folder], check=True)
        for process in self._processes:
            process.terminate()
            process.wait(10)
        if self._loop:
            quietly([], "losetup", "-d", self._loop)

    def _run(self, *command: str | Path, **streams: int) -> None:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams}
        self._processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, **streams))


def quietly(options: list[str], *command: str | Path) -> str:
    done = subprocess.run([command[0], *options, *command[1:]], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(params=TOOLS)
def disk(request) -> Iterator[ForeignDisk]:
    if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("needs root and /dev/fuse")
    if missing := [tool for tool in TOOLS[request.param] if not shutil.which(tool)]:
        pytest.skip(f"needs {', '.join(missing)}")
    with tempfile.TemporaryDirectory(dir=SHORT) as below:  # a socket's path must fit
        try:
            one = ForeignDisk(request.param, Path(below))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this host mounts none: {error.stderr}")
        yield one
        one.close()


def on(disk: ForeignDisk, folder: Path, library: Path) -> Settings:
    text = f'[library]\nfree_reserve_mb = 1\npictures_max_count = 3\n[export]\nbase_dir = "{disk.folder}/captures"\n'
    text += f'[paths]\nlibrary = "{library}"\nrecordings = "{disk.folder}/recordings"\n'
    (folder / "config.toml").write_text(text)
    return Settings.load(folder / "config.toml", environ={})


def save_picture(settings: Settings, catalogue: Catalogue, number: int) -> Entry:
    captures = settings.paths.captures
    captures.mkdir(exist_ok=True)
    path = captures / f"20260101_00000{number}_f{number}.npy"
    make_room(settings, catalogue, 100, captures, kind="picture")
    with open_atomic(path) as file:
        file.write(bytes(100))
    return catalogue.add(
        Entry(kind="picture", camera="cam0", path=path, started_utc_ns=STARTED + number, trigger="auto")
    )


def record(settings: Settings, name: str) -> ClipFile:
    folder = settings.paths.recordings
    folder.mkdir(exist_ok=True)
    clip = ClipFile(ClipPaths(folder / name), film.FORMAT, film.track(), film.about())
    for unit in film.units():
        clip.add(unit)
    return clip


def test_pictures_clips_and_retention_live_on_it(disk, tmp_path):
    settings = on(disk, tmp_path, tmp_path / "library.sqlite3")
    with Catalogue.of(settings) as catalogue:
        catalogue.reconcile()
        pictures = [save_picture(settings, catalogue, number) for number in range(5)]
        with pytest.raises(FileExistsError), open_atomic(pictures[-1].path) as file:
            file.write(b"never instead of another")
        record(settings, "cam0_320x96_30fps_20260101_000000.mp4").close()
        film.killed(record(settings, "cam0_320x96_30fps_20260101_000001.mp4"))
        clips = sorted(settings.paths.recordings.iterdir())
        assert [len(numbers(path)) for path in clips if path.suffix == ".mp4"] == [100]
        assert [path.suffix for path in clips].count(".part") == 2, "of the killed one, a film and its CSV"
        left = {entry.path for entry in catalogue.find()}
        assert left == {picture.path for picture in pictures[2:]}, "the oldest have gone, with what lay beside them"
        captures = sorted(path.name for path in settings.paths.captures.iterdir())
        assert captures == sorted(f"{path.name}{end}" for path in left for end in ("", ".json"))
        assert sweep(settings.paths.captures) == [] and catalogue.protect(pictures[4].id).protected
        disk.pull()
        assert catalogue.reconcile() == ([], []), "nothing is forgotten while it is away"
        with pytest.raises(NoRoom, match="its disk is not mounted"):
            save_picture(settings, catalogue, 9)
        disk.folder.joinpath("captures").rmdir()  # what mkdir made in the mount point
        disk.plug_in()
        assert catalogue.check() == [] and catalogue.rebuild() == (3, 0)
        assert [entry.protected for entry in catalogue.find()].count(True) == 1


def test_a_library_on_it_works_or_says_what_to_do(disk, tmp_path):
    settings = on(disk, tmp_path, disk.folder / "library.sqlite3")
    with Catalogue.of(settings) as catalogue:
        if disk.kind == "fat":  # by fusefat, which cannot map files into memory; the kernel's FAT can
            with pytest.raises(NotWritable, match=r"set paths\.library to a file on another disk"):
                catalogue.find()
            return
        kept = [save_picture(settings, catalogue, number) for number in range(5)][2:]
        assert [entry.path for entry in catalogue.find(newest_first=False)] == [entry.path for entry in kept]
        assert catalogue.check() == []


def test_a_description_is_changed_by_one_at_a_time(disk, tmp_path, monkeypatch):
    """By flock of the folder, which all of them know."""
    monkeypatch.setattr(sidecar, "LOCK_S", 0.1)
    settings = on(disk, tmp_path, tmp_path / "library.sqlite3")
    with Catalogue.of(settings) as catalogue:
        entry = save_picture(settings, catalogue, 1)
        with sidecar.lock_folder(entry.path.parent), pytest.raises(LibraryBusy, match="held by another process"):
            catalogue.protect(entry.id)
        assert catalogue.protect(entry.id).protected and catalogue.check() == []


def test_a_run_folder_on_it_works_or_is_refused_by_name(disk, tmp_path):
    """supervisord ended again and again with `Input/output error`, and left files in place of its sockets."""
    settings = on(disk, tmp_path, tmp_path / "library.sqlite3")
    problem = find_path_problem(replace(settings, document={"paths": {"run": str(disk.folder / "run")}}))
    assert ("knows no Unix sockets" in problem) == (disk.kind != "ntfs") and not list(disk.folder.iterdir())
