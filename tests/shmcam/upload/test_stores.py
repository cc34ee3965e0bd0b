"""Uploads to real stores: what arrives is verified by checksum, what does not is not marked, and no secret is shown."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from shmcam.library.archive import build
from shmcam.library.manifest import Span
from shmcam.library.sidecar import UPLOADED, read_json, sidecar_path_of
from shmcam.upload.rclone import Rclone, RunResult
from tests.machine import until
from tests.shmcam.upload.conftest import PASSWORD, find_commands, rclone

pytestmark = rclone


@pytest.fixture(params=["local", "crypt", "sftp", "openssh", "s3"])
def store(request):
    made = request.getfixturevalue(request.param)
    return made[0] if request.param == "sftp" else made


def test_everything_arrives_equal_and_is_marked(store, make):
    one = make(store)
    clip = one.saved("cam0_20260101_000000.mp4", 300_000, companions=("cam0_20260101_000000_frame_timing.csv",))
    timing = clip.path.with_name(clip.companions[0])
    timing.write_text("frame,ns\n")
    picture = one.saved("20260101_000001_f1.npy", kind="picture", trigger="save")
    archive = build(one.catalogue, one.settings.paths.archives, "trial", Span(), config="# none\n")
    while one.uploader.step() == 0.0:
        pass
    assert set(one.marks().values()) == {store.remote}
    assert (one.uploader.state.waiting, one.uploader.state.uploaded, one.uploader.state.trouble) == (0, 3, "")
    arrived = store.files()
    assert arrived >= {f"recordings/{path.name}" for path in (clip.path, timing, sidecar_path_of(clip.path))}
    assert arrived >= {f"captures/{picture.path.name}", "archives/trial/manifest.json", "archives/trial/config.toml"}
    assert f"archives/trial/recordings/{clip.path.name}" in arrived
    assert store.read(f"recordings/{clip.path.name}") == clip.path.read_bytes()
    assert [event.row for event in one.events] == [clip.id, picture.id, archive.id] or len(one.events) == 3
    assert one.events[0].to == store.remote
    one.catalogue.rebuild()
    assert set(one.marks().values()) == {store.remote}


def test_a_copy_that_is_not_what_the_file_is_gets_no_mark_and_is_sent_anew(store, make, monkeypatch):
    """Also on a store without checksums, where rclone takes a file of the same size for equal."""
    one = make(store)
    clip = one.saved("cam0_20260101_000000.mp4", 3000)
    beside = clip.path.with_name("other.bin")
    beside.write_bytes(b"x" * 3000)
    store.run("copyto", str(beside), f"{store.remote}/recordings/{clip.path.name}")
    with monkeypatch.context() as patch:
        patch.setattr(Rclone, "copy", lambda *_, **__: RunResult(0, ""))  # it says it is there
        one.uploader.step()
    assert one.marks() == {clip.path.name: ""} and one.uploader.state.failed == 1 and one.events == []
    one.uploader._queue.rows[clip.id].due_s = 0.0
    one.uploader.step()
    assert one.marks() == {clip.path.name: store.remote} and one.uploader.failing == ""
    assert store.read(f"recordings/{clip.path.name}") == clip.path.read_bytes()


def test_what_has_arrived_before_is_compared_and_not_sent_again(local, make, disk):
    """As after a kill between copy and mark, or a library that was made anew."""
    one = make(local)
    clip = one.saved("cam0_20260101_000000.mp4", 3000)
    one.uploader.step()
    copy = disk / "shmcam/recordings" / clip.path.name
    before = copy.stat().st_mtime_ns, copy.stat().st_ino, copy.stat().st_ctime_ns
    beside = sidecar_path_of(clip.path)
    beside.write_text(beside.read_text().replace(f'"{UPLOADED}"', '"forgotten"'))
    one.catalogue.rebuild()
    assert one.marks() == {clip.path.name: ""}
    one.uploader.step()
    assert one.marks() == {clip.path.name: local.remote}
    assert (copy.stat().st_mtime_ns, copy.stat().st_ino, copy.stat().st_ctime_ns) == before


def test_a_file_that_changes_while_it_is_copied_is_copied_again(local, make, monkeypatch):
    one = make(local)
    clip = one.saved("keogram_20260101.npy", kind="keogram")
    real = Rclone.copy

    def copy_and_change(self, *args, **options):
        result = real(self, *args, **options)
        clip.path.write_bytes(b"more")
        return result

    monkeypatch.setattr(Rclone, "copy", copy_and_change)
    assert one.uploader.step() > 0 and one.marks() == {clip.path.name: ""} and one.events == []


def test_settings_choose_what_is_uploaded(local, make):
    one = make(local, 'upload.groups=["clips"]', "upload.only_triggered=true")
    one.saved("a_20260101.mp4", trigger="rolling"), one.saved("b_20260101.mp4", trigger="motion")
    one.saved("c_20260101.npy", kind="picture", trigger="save")
    one.uploader.step()
    assert one.marks() == {"a_20260101.mp4": "", "b_20260101.mp4": local.remote, "c_20260101.npy": ""}
    assert one.uploader.state.waiting == 0


def test_a_store_that_goes_away_is_trouble_and_its_return_is_enough(sftp, make, monkeypatch):
    store, server = sftp
    one = make(store)
    names = [one.saved(f"{letter}_20260101.mp4").path.name for letter in "abc"]
    server.stop()
    delays = [one.uploader.step() for _ in range(2)]
    assert delays[0] >= 10 and delays[1] > delays[0], "waits longer each time"
    assert one.uploader.state.state == "retrying" and "connection refused" in one.uploader.state.trouble
    assert one.uploader.state.failed == 0, "no file is to blame"
    server.start()
    while one.uploader.step() == 0.0:
        pass
    assert one.marks() == dict.fromkeys(names, store.remote)
    assert (one.uploader.state.state, one.uploader.state.trouble) == ("running", "")


def test_trouble_ends_with_its_cause_although_nothing_waits_any_more(local, make, disk):
    """`retrying` and the reason stayed in the status until the next upload."""
    one = make(local)
    clip, away = one.saved("a_20260101.mp4"), disk.with_name(f"{disk.name}-away")
    disk.rename(away)
    try:
        assert one.uploader.step() >= 10 and one.uploader.state.state == "retrying"
        one.catalogue.delete(clip.id, "command")
        assert one.uploader.step() >= 10 and one.uploader.state.trouble, "nothing waits, and it is still away"
    finally:
        away.rename(disk)
    one.uploader.step()
    assert (one.uploader.state.state, one.uploader.state.trouble) == ("running", "")


@pytest.mark.parametrize(
    ("remote", "told"), [("nowhere:x", "didn't find section"), ("/proc/shmcam", "no such file or directory")]
)
def test_a_bad_remote_is_told_in_its_own_words(local, make, remote, told):
    local.remote = remote
    one = make(local)
    one.saved("a_20260101.mp4"), one.saved("b_20260101.mp4")
    assert one.uploader.step() >= 10
    assert told in one.uploader.state.trouble and one.uploader.state.waiting == 2
    assert set(one.marks().values()) == {""}


def test_wrong_credentials_are_told_and_no_secret_is(sftp, make, caplog):
    store, _ = sftp
    store.config.write_text(store.config.read_text().replace("user = ann", "user = bob"))
    one = make(store)
    one.saved("a_20260101.mp4")
    one.uploader.step()
    assert "unable to authenticate" in one.uploader.state.trouble
    hidden = [line.partition(" = ")[2] for line in store.config.read_text().splitlines() if line.startswith("pass")]
    assert not any(secret in caplog.text + one.uploader.state.trouble for secret in (PASSWORD, *hidden))


def test_one_file_that_cannot_be_read_keeps_no_other(local, make):
    one = make(local)
    for letter in "abc":
        one.saved(f"{letter}_20260101.mp4")
    odd = one.catalogue.find(newest_first=False)[1]
    odd.path.rename(odd.path.with_name("gone.mp4"))
    while one.uploader.step() == 0.0:
        pass
    assert one.marks() == {"a_20260101.mp4": local.remote, odd.path.name: "", "c_20260101.mp4": local.remote}
    assert one.uploader.state.trouble == "" and "its file is not there" in one.uploader.failing
    one.catalogue.forget([odd.id])
    one.uploader.step()
    assert one.uploader.failing == "" and one.uploader.state.waiting == 0


def test_a_transfer_keeps_to_its_speed_and_ends_at_once_when_its_hour_is_over(local, make, in_thread, monkeypatch):
    one = make(local, "upload.max_kb_s=200")
    clip = one.saved("a_20260101.mp4", 2_000_000)
    began = time.monotonic()
    in_thread(one)
    until(lambda: 0 < one.uploader.state.stats.percent < 100, 20, lambda: str(one.uploader.state))
    assert one.uploader.state.stats.file == clip.path.name and one.uploader.state.state == "uploading"
    monkeypatch.setattr(one.uploader, "_is_hour", lambda: False)
    until(lambda: one.uploader.state.state == "paused", 20, lambda: str(one.uploader.state))
    assert time.monotonic() - began < 10 or clip.path.name not in local.files()
    assert one.marks() == {clip.path.name: ""} and one.uploader.state.failed == 0


def test_the_command_line_has_the_path_of_the_configuration_and_no_secret(sftp, make, in_thread, tmp_path):
    store, _ = sftp
    one = make(store, "upload.max_kb_s=100")
    one.saved("a_20260101.mp4", 2_000_000)
    in_thread(one)
    mine = until(lambda: [argv for argv in find_commands("rclone copy") if str(store.config) in argv], 20, "rclone")
    secrets = [line.partition(" = ")[2] for line in store.config.read_text().splitlines() if line.startswith("pass")]
    assert not any(secret in argv for argv in mine for secret in (PASSWORD, *secrets))


def test_a_hash_is_what_is_compared_not_the_size(local, make, disk):
    one = make(local)
    clip = one.saved("a_20260101.mp4", 5000)
    one.uploader.step()
    copy = disk / "shmcam/recordings" / clip.path.name
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(clip.path.read_bytes()).digest()
    mark = (read_json(sidecar_path_of(clip.path)) or {})[UPLOADED]
    assert mark == {"to": local.remote, "bytes": 5000, "mtime_ns": clip.path.stat().st_mtime_ns}
    assert isinstance(copy, Path)


def test_what_a_full_store_lists_is_not_read_when_it_is_asked_whether_it_answers(local, disk):
    for number in range(100):
        (disk / f"{number}.jpg").touch()
    probe = Rclone(local.config).probe(str(disk))
    assert probe.has_answered and probe.lines == ()
