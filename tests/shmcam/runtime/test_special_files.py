"""FIFOs, devices, links and files of gigabytes in the place of our state: read by nobody, waited for by nobody."""

from __future__ import annotations

import os
import stat

import pytest

from exporter.stacking.dark_frames import DarkFacts, choose_dark
from recorder.clips import recovery
from recorder.resume import EventMarks, ResumeFile
from shmcam.runtime.atomic_files import is_regular, open_regular, read_state, sweep
from shmcam.watchdog.camera_changes import CameraGroups

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
