"""A folder of this machine has copies only if it is there and on another disk: else the only copy might be deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmcam.upload.local_remote import find_local_folder, find_problem
from tests.shmcam.upload.conftest import rclone


@pytest.mark.parametrize(
    ("remote", "folder"),
    [
        ("/mnt/nas/porch/", "/mnt/nas/porch"),
        ("/mnt/nas/./x/../porch", "/mnt/nas/porch"),
        ("/mnt/a:b", "/mnt/a:b"),
        ("sd:/data", "/data"),
        ("sd:/", "/"),
        ("sd:data", "CWD/data"),
        ("nas:shmcam/porch", "/mnt/nas/shmcam/porch"),
        ("nas:/", "/mnt/nas"),
        ("here:x", "CWD/x"),
        ("twice:x", "/mnt/nas/deep/x"),
        ("inline:x", "/mnt/x"),
        ("dark:x", "/mnt/nas/dark"),
        ("far:x", None),
        ("behind:x", None),
        ("circle:x", None),
        ("unknown:x", None),
    ],
)
def test_where_a_remote_writes(remote, folder):
    sections = {
        "sd": {"type": "local"},
        "nas": {"type": "alias", "remote": "/mnt/nas"},
        "here": {"type": "alias", "remote": "."},
        "twice": {"type": "alias", "remote": "nas:deep"},
        "inline": {"type": "alias", "remote": ":local:/mnt"},
        "dark": {"type": "crypt", "remote": "nas:dark"},
        "far": {"type": "sftp", "host": "h"},
        "behind": {"type": "alias", "remote": "far:y"},
        "circle": {"type": "alias", "remote": "circle:"},
    }
    assert find_local_folder(remote, sections) == (folder and Path(folder.replace("CWD", str(Path.cwd()))))


def test_the_environment_names_remotes_too(monkeypatch):
    monkeypatch.setenv("RCLONE_CONFIG_MY_NAS_TYPE", "alias")
    monkeypatch.setenv("RCLONE_CONFIG_MY_NAS_REMOTE", "/data")
    assert find_local_folder("my-nas:", {}) == Path("/data")


@pytest.fixture
def sources(tmp_path):
    for word in ("captures", "recordings"):
        (tmp_path / "data" / word).mkdir(parents=True)
    return {word: tmp_path / "data" / word for word in ("captures", "recordings", "archives")}


@pytest.mark.parametrize("place", [".", "data", "data/captures", "data/captures/copies", "link", "data/archives/x"])
def test_a_folder_that_holds_a_source_or_lies_in_one_is_refused(tmp_path, sources, place):
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert "in it or around it" in find_problem(tmp_path / place, sources)


def test_a_folder_on_the_same_disk_or_that_is_not_there_is_refused(tmp_path, sources, disk):
    (tmp_path / "mnt").mkdir()
    assert "is the other disk mounted?" in find_problem(tmp_path / "mnt", sources)
    assert "no such file or directory; mount its disk" in find_problem(disk / "porch", sources)
    assert find_problem(disk, sources) == ""
    (disk / "recordings").symlink_to(sources["recordings"])
    assert "in it or around it" in find_problem(disk, sources)
    (disk / "recordings").unlink()
    (disk / "archives").symlink_to(tmp_path / "mnt")
    assert "is the other disk mounted?" in find_problem(disk, sources)


@rclone
@pytest.mark.parametrize("kind", ["path", "alias", "local"])
def test_a_copy_that_is_the_file_itself_is_no_upload(local, make, tmp_path, kind):
    data = tmp_path / "data"
    local.config.write_text(f"[same]\ntype = {kind}\nremote = {data}\n")
    local.remote = {"path": f"{data}", "alias": "same:", "local": f"same:{data}"}[kind]
    words = (f'export.base_dir="{data}/captures"', f'paths.recordings="{data}/recordings"')
    one = make(local, *words, f'paths.archives="{data}/archives"')
    clip = one.saved("a_20260101.mp4")
    assert one.uploader.step() >= 10 and one.marks() == {clip.path.name: ""}
    assert "in it or around it" in one.uploader.state.trouble and one.uploader.state.failed == 0


@rclone
def test_a_disk_that_goes_away_while_files_are_copied_marks_none(local, make, monkeypatch):
    one = make(local)
    clip = one.saved("a_20260101.mp4")
    answers = iter(["", "is the other disk mounted?"])
    monkeypatch.setattr("shmcam.upload.uploader.find_problem", lambda *_: next(answers))
    assert one.uploader.step() >= 10 and one.marks() == {clip.path.name: ""}
    monkeypatch.undo()
    one.uploader.step()
    assert one.marks() == {clip.path.name: local.remote} and one.uploader.state.trouble == ""
