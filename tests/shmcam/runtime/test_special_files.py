"""FIFOs, devices, links and files of gigabytes in the place of our state: read by nobody, waited for by nobody."""

from __future__ import annotations

import ast
import os
import stat
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from analyzer.keogram.day_file import DayFile
from capture.sources.base import CameraError, CameraRequest
from capture.sources.video_file import FileSource
from exporter.films import build
from exporter.session_log_collector import RunningSession, SessionLogs
from exporter.stacking.dark_frames import DarkFacts, choose_dark
from recorder.clips import clip_file, recovery
from recorder.resume import EventMarks, ResumeFile
from shm_ring import RingBusy
from shm_ring.ownership import WriterLock
from shmcam.hooks.attempt import find_attachment
from shmcam.hub.unix_socket import SocketTakenError, _take_lock
from shmcam.library import manifest, sidecar
from shmcam.runtime import log_tail
from shmcam.runtime.atomic_files import is_regular, open_atomic, open_regular, read_state, sweep
from shmcam.runtime.stop import Stop
from shmcam.video import growing_mp4
from shmcam.watchdog.camera_changes import CameraGroups
from streamer.api import thumbnails, zip_download

KINDS = ("fifo", "socket", "folder", "dangling", "sparse")


def put(path, kind):
    """Puts something there that is no state of ours."""
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)
        case "folder":
            path.mkdir()
        case "dangling":
            path.symlink_to(path.with_name("nowhere"))
        case "sparse":
            with path.open("wb") as file:
                file.truncate(2 << 30)


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    """`shmcam import --force --output /dev/null` as root left a file there, which everybody's output then filled."""
    (tmp_path / "null").symlink_to("/dev/null")
    for path in (tmp_path / "null", Path("/dev/full")):
        with pytest.raises(OSError, match="a device, no file"), open_atomic(path, replace=True):
            pass
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_state_of_ours_is_refused_at_once(tmp_path, kind):
    """A sparse file of 2 GB in the place of a state file ended capture and hub."""
    path = tmp_path / "state.json"
    put(path, kind)
    with pytest.raises(OSError):
        read_state(path)
    assert is_regular(path) == (kind == "sparse")
    (tmp_path / "good").write_bytes(b"x" * 10)
    assert read_state(tmp_path / "good") == b"x" * 10
    with pytest.raises(OSError, match="10 bytes, at most 9 are read"):
        open_regular(tmp_path / "good", 9)


@pytest.mark.parametrize("kind", KINDS)
def test_who_reads_state_goes_on_without_it(tmp_path, kind):
    for name in ("marks", "resume", "groups", "cam0_1000us_1.00x.npz", "cam0_640x480_30fps_20260101_000000.mp4.part"):
        put(tmp_path / name, kind)
    EventMarks(tmp_path / "marks")
    assert ResumeFile(tmp_path / "resume").read(0, 0) is None
    groups = CameraGroups(tmp_path / "groups", "run")
    assert not groups.have_changed([])
    if kind != "folder":  # which cannot be replaced by a file
        groups.write()
    facts = DarkFacts("cam0", 1000, 1.0, ("yuv420p", 4, 2))
    assert choose_dark(tmp_path, facts, 12, 0).dark is None
    if kind != "sparse":  # that one is a leftover by its name: it holds no frame and goes
        assert recovery.adopt_leftovers(tmp_path, "cam0") == []
        assert os.path.lexists(tmp_path / "cam0_640x480_30fps_20260101_000000.mp4.part")


def test_a_temporary_name_that_is_a_fifo_or_a_folder_is_not_swept(tmp_path):
    os.mkfifo(tmp_path / ".a.npy.77.part")
    (tmp_path / ".b.npy.77.part").mkdir()
    (tmp_path / ".c.npy.77.part").write_bytes(b"x")
    assert [path.name for path in sweep(tmp_path)] == [".c.npy.77.part"]


def timing_csv(path):
    clip_file.read_rows(path)


def merged_logs(path):
    log_tail.merge_tails(path.parent, "", 5)
    list(log_tail.LogFollower(path.parent, "").read_new())


def session_log(path):
    collector = SessionLogs(path.parent, Stop())
    collector._append(path.parent, RunningSession(log_tail.LogFollower(path.parent, "")), ["a line"])


def day_of_keogram(path):
    DayFile(path, np.dtype("u1")).append(np.zeros(1, np.uint8))


def film_of_pictures(path):
    assert build._read_picture(path) is None


def thumbnail(path):
    assert thumbnails.make_thumbnail(path, "image/jpeg", 100) is None
    assert thumbnails.make_thumbnail(path, "video/mp4", 100) is None


def download(path):
    list(zip_download.zip_pieces([(path, "x")]))


def attachment(path):
    assert find_attachment("picture", str(path), None) is None


def video_as_camera(path):
    with pytest.raises(CameraError):
        FileSource(path).open(CameraRequest(1, 1, 30), Stop())


READERS = {
    "x.csv": timing_csv,
    "x.log": merged_logs,
    "session.log": session_log,
    ".columns": day_of_keogram,
    "film.jpg": film_of_pictures,
    "thumb.jpg": thumbnail,
    "x.zip": download,
    "attached.jpg": attachment,
    "sum": manifest.hash_file,
    "exif.jpg": sidecar.read_exif,
    "about.mp4": growing_mp4.read_about,
    "summary.mp4": growing_mp4.read_summary,
    "camera.mp4": video_as_camera,
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sparse"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_read_or_written_elsewhere_is_waited_for_by_nobody(tmp_path, name, kind):
    """A FIFO among the logs held the hub's threads; one in a picture's place the exporter's or the streamer's."""
    put(tmp_path / name, kind)
    if kind == "dangling" and name in (".columns", "session.log"):
        pytest.skip("it writes where the link leads, if there is such a folder")
    with suppress(OSError):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sparse"])
def test_what_is_no_lock_is_named_and_nobody_waits_for_it(tmp_path, kind):
    put(tmp_path / "cam0.main.lock", kind)
    put(tmp_path / "control.lock", kind)
    with pytest.raises(RingBusy, match=r"cam0\.main\.lock is no file and cannot be locked; remove it"):
        WriterLock.take(tmp_path / "cam0.main.lock", "/x")
    with pytest.raises(SocketTakenError, match=r"control\.lock is no file and cannot be locked; remove it"):
        _take_lock(tmp_path / "control.sock")


HOME = Path(__file__).parents[3]
OPENS = {"open", "read_text", "read_bytes"}
ITS_OWN = {
    "shmcam/runtime/procfs.py": "the kernel's files",
    "shmcam/runtime/startup.py": "the kernel's files",
    "shmcam/library/disks/disk_space.py": "the kernel's list of mounts",
    "streamer/auth/peer_uid.py": "the kernel's table of sockets",
    "capture/desired_request.py": "the kernel's /proc/meminfo",
    "shmcam/config/toml_file.py": "config.toml, which may be a pipe: --config <(…)",
    "shmcam/config/settings.py": "looks first; also config.toml",
    "shmcam/hub/config_file.py": "config.toml",
    "shmcam/hub/unix_socket.py": "looks first",
    "shmcam/runtime/supervisord_programs.py": "our supervisord.conf",
    "shmcam/supervisord/memory.py": "a file in memory",
    "shmcam/supervisord/forked_program.py": "descriptors",
    "shmcam/video/growing_mp4.py": "cuts what was read before",
    "streamer/http/static_files.py": "the page, which is installed",
}
"""The modules of long-lived processes that open files in another way, and the reason why that may be."""
NO_FILES = {
    "live_video.py",
    "encoder.py",
    "source.py",
    "preview_messages.py",
    "error_translation.py",
    "whep.py",
    "rings.py",
    "server.py",
}
"""Modules whose `open` opens cameras, encoders, connections and rings."""


def test_no_process_opens_what_it_would_wait_for():
    """Every file of ours is opened by `open_regular`, `open_to_append`, `read_state` or made anew."""
    found = set()
    for package in ("shmcam", "capture", "analyzer", "exporter", "recorder", "streamer"):
        for path in (HOME / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                of = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
                is_file = of not in ("os", "av", "RingReader", "whole", "super()", "self") and "source" not in of
                if name in OPENS and is_file and path.name not in NO_FILES:
                    found.add(str(path.relative_to(HOME)))
    found = {path for path in found if not path.startswith("shmcam/cli/")}
    assert sorted(found) == sorted(ITS_OWN)
