"""Disks that are full, broken, read-only or absent: what is complete plays, and recording resumes."""

from __future__ import annotations

import errno
import json
import os
import queue
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from recorder.clips.clip import ClipFormat
from recorder.clips.finish import Finisher
from recorder.clips.recovery import adopt_leftovers
from recorder.clips.storage import Storage
from recorder.clips.writer import ClipWriter, OpenClip, QueuedUnit, RetryState
from recorder.resume import EventMarks
from recorder.settings import RecorderSettings
from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from shmcam.library.errors import LibraryBusy, NotWritable
from shmcam.runtime.stop import Stop
from shmcam.video import disk_file
from shmcam.video.disk_file import DiskFile
from tests.machine import until
from tests.mounts import mounts, with_disk
from tests.recorder import film
from tests.recorder.rig import ROOT, numbers, rows, timing_of


class Faulty(DiskFile):
    """Fails at its n-th operation of one kind, in a given way."""

    kind, at, fault = "write", 1, "ENOSPC"
    count = 0
    syncs_after_fault = 0

    def _write_some(self, descriptor, data, offset):
        type(self).count += self.kind == "write"
        if self.kind == "write" and self.count == self.at:
            if self.fault == "short":
                return super()._write_some(descriptor, data[: max(1, len(data) // 3)], offset)
            if self.fault == "torn":
                super()._write_some(descriptor, data[: len(data) // 2], offset)
            raise OSError(getattr(errno, {"torn": "EIO"}.get(self.fault, self.fault)), os.strerror(errno.EIO))
        return super()._write_some(descriptor, data, offset)

    def _sync_data(self, descriptor):
        type(self).count += self.kind == "sync"
        if self.kind == "sync" and self.count == self.at:
            raise OSError(errno.EIO, "fsync lies")
        if self.broken is not None:
            type(self).syncs_after_fault += 1
        super()._sync_data(descriptor)


def faulty(kind, at, fault):
    return type("Case", (Faulty,), {"kind": kind, "at": at, "fault": fault})


def fails(folder, opener, form):
    """Write the whole film. Returns: whether the disk refused on the way."""
    clip = None
    try:
        clip = film.clip_file(folder, opener, form)
        for unit in film.units():
            clip.add(unit)
        clip.close()
    except OSError:
        if clip is not None:
            clip.abandon()
        return True
    return False


SOME = [*range(1, 8), 20, 21, *range(103, 116)]


@pytest.mark.parametrize("at", [SOME, pytest.param(range(1, 201), marks=pytest.mark.slow)], ids=["some", "each"])
@pytest.mark.parametrize(
    ("fault", "container"),
    [(fault, "mp4") for fault in ("ENOSPC", "EIO", "EROFS", "torn", "short", "fsync")]
    + [(fault, container) for fault in ("ENOSPC", "fsync") for container in ("mkv", "h264")],
)
def test_a_fault_at_any_write_leaves_what_was_complete(tmp_path, fault, container, at):
    """n = 1, 2, 3 … each time the files that are left play and agree with their CSV."""
    form, hit = film.ClipFormat(container, 0.5 * (container == "mp4"), csv=True, plain=True), 0
    for n in at:
        folder = tmp_path / f"{n}"
        folder.mkdir()
        opener = faulty("sync" if fault == "fsync" else "write", n, fault)
        failed = fails(folder, opener, form)
        hit += failed
        assert opener.syncs_after_fault == 0, "a file whose fsync failed is not synced again"
        for clip in folder.glob(f"*.{container}"):
            ids = numbers(clip)
            assert ids == list(range(1000, 1000 + len(ids))), (n, ids)
            assert [int(line["frame_number"]) for line in rows(timing_of(clip))] == ids, n
            assert failed or len(ids) == 100
        assert not list(folder.glob("*.part")), n
        shutil.rmtree(folder)
    assert hit >= {"short": 0, "fsync": 1}.get(fault, 4)


def refuse(*_some, **_more):
    raise OSError(errno.EIO, "the card is dying")


@pytest.mark.parametrize("container", ["mp4", "mkv", "h264"])
def test_what_a_failed_fsync_was_to_confirm_is_not_claimed(tmp_path, monkeypatch, container):
    """After it the kernel may have dropped the pages: only what the sync before confirmed is certainly there."""
    film.at_once(monkeypatch)
    form, written, counts = film.ClipFormat(container, 0.5 * (container == "mp4"), csv=True, plain=True), [], []
    for at in (2, 4, 6, 8)[: 3 if container == "mp4" else 4]:  # each second one is the video's
        folder = tmp_path / f"{at}"
        folder.mkdir()
        assert fails(folder, faulty("sync", at, "fsync"), form)
        counts.append(sum(len(numbers(clip)) for clip in folder.glob(f"*.{container}")))
        written.append(len(list(folder.iterdir())))
    assert counts[0] == 0 < counts[-2] < counts[-1] and counts == sorted(counts)
    assert all(files == 2 * (frames > 0) for files, frames in zip(written, counts, strict=True))


def test_what_cannot_be_cut_back_keeps_its_growing_name_until_it_is_adopted(tmp_path, monkeypatch):
    """A NAS came back with the files' handles lost: they were renamed uncut, and the CSV had lines without frames."""
    with monkeypatch.context() as broken:
        broken.setattr("shmcam.video.disk_file.os.ftruncate", refuse)
        assert fails(tmp_path, faulty("write", 104, "EIO"), film.FORMAT)
    assert all(path.suffix == ".part" for path in tmp_path.iterdir()) and len(list(tmp_path.iterdir())) == 2
    (closed,) = adopt_leftovers(tmp_path, "cam0")
    ids = numbers(closed.path)
    assert len(ids) > 5 and [int(line["frame_number"]) for line in rows(timing_of(closed.path))] == ids


def test_a_folder_that_cannot_be_synced_leaves_neither_file_nor_descriptor(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_file, "sync_folder", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="dying"):
        film.clip_file(tmp_path)
    assert not list(tmp_path.iterdir()) and len(list(Path("/proc/self/fd").iterdir())) == before


def test_new_folders_are_synced_into_those_above_them(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("recorder.clips.storage.sync_folder", synced.append)
    monkeypatch.setattr("recorder.clips.storage.make_room", lambda *_some, **_more: [])
    (tmp_path / "config.toml").touch()
    settings = Settings.load(tmp_path / "config.toml", environ={})
    with Catalogue.of(settings) as catalogue:
        storage = Storage(settings, RecorderSettings(), catalogue)
        storage.prepare(storage.recordings / "session_20260101_000000", 0)
        storage.prepare(storage.recordings / "session_20260101_000001", 0)
    assert synced == [storage.recordings.parent, storage.recordings, storage.recordings]


@contextmanager
def finishing(folder: Path):
    """A finisher that was not started, its library, and what it announces."""
    (folder / "config.toml").touch()
    settings, notices = Settings.load(folder / "config.toml", environ={}), queue.SimpleQueue()
    with Catalogue.of(settings) as catalogue:
        finisher = Finisher(
            *(settings, RecorderSettings(), "cam0"),
            marks=EventMarks(folder / "marks.json"),
            catalogue=catalogue,
            closed=queue.SimpleQueue(),
            notices=notices,
            stop=Stop(),
        )
        yield finisher, catalogue, notices


def test_a_disk_that_does_not_answer_ends_neither_writer_nor_finisher(tmp_path, monkeypatch):
    """Every look at the closed file fails, too."""
    clip = film.clip_file(tmp_path)
    for unit in film.units():
        clip.add(unit)
    clip_of_writer = OpenClip("cam0", clip, film.ORDER, film.track(), 0)
    clip.close()
    with finishing(tmp_path) as (finisher, _, notices):
        kept = clip_of_writer.to_closed("over", intact=True)
        with monkeypatch.context() as broken:
            for name in ("exists", "stat"):
                broken.setattr(Path, name, refuse)
            assert not clip_of_writer.to_closed("over", intact=True).kept
            finisher._finish(kept)
        assert notices.empty()
        finisher._finish(kept)
        assert notices.get().closed.path == clip.paths.clip


def test_a_clip_that_could_not_be_filed_is_filed_when_there_is_room_again(tmp_path, monkeypatch):
    """A protected recording that ended on a full disk lost its description, and was deleted later."""
    monkeypatch.setattr("recorder.clips.finish.RETRY_S", 0.2)
    clip = film.clip_file(tmp_path)
    for unit in film.units():
        clip.add(unit)
    order = replace(film.ORDER, protect=True)
    clip_of_writer = OpenClip("cam0", clip, order, film.track(), 0)
    clip.close()
    with finishing(tmp_path) as (finisher, catalogue, notices):
        real, tries = catalogue.add, []

        def add(entry):
            tries.append(entry)
            if len(tries) < 3:
                raise OSError(errno.ENOSPC, "no space left")
            return real(entry)

        monkeypatch.setattr(catalogue, "add", add)
        finisher._closed.put(clip_of_writer.to_closed("over", intact=True))
        finisher.start()
        assert notices.get(timeout=30).closed.path == clip.paths.clip
        finisher.close(10)
        (entry,) = catalogue.find()
        assert entry.protected and len(tries) == 3


def test_a_rolling_clip_is_filed_once_though_the_oldest_cannot_be_deleted(tmp_path, monkeypatch):
    """It was filed and announced every 15 s, and its file lost the protection that somebody had given it meanwhile."""

    def keep_newest(*_some, **_more):
        asked.append(1)
        raise LibraryBusy("held by another process")

    asked: list[int] = []
    monkeypatch.setattr("recorder.clips.finish.keep_newest", keep_newest)
    clip = film.clip_file(tmp_path)
    for unit in film.units():
        clip.add(unit)
    order = replace(film.ORDER, kind="rolling", trigger="rolling")
    clip_of_writer = OpenClip("cam0", clip, order, film.track(), 0)
    clip.close()
    with finishing(tmp_path) as (finisher, catalogue, notices):
        finisher._finish(clip_of_writer.to_closed("over", intact=True))
        assert asked and notices.get(timeout=1).closed.path == clip.paths.clip
        assert not finisher._waiting and len(catalogue.find()) == 1


ON_A_FULL_DISK = """
import json, sys
from dataclasses import replace
from msgspec.structs import asdict
from pathlib import Path
from recorder.clips.clip import ClipPaths, describe
from recorder.clips.clip_file import ClipFile
from recorder.clips.finish import entry_of
from recorder.clips.recovery import find_unfiled, read_closed
from recorder.clips.writer import OpenClip
from shmcam.config.settings import Settings
from shmcam.library import Catalogue, LibraryError
from tests.recorder import film

settings = Settings.load(Path(sys.argv[1]) / "config.toml", environ={})
folder = settings.paths.recordings / "session_20260101_000000"
order = replace(film.ORDER, protect=True, label="trial_7")
folder.mkdir(parents=True)
with Catalogue.of(settings) as catalogue:
    catalogue.find()
    units, paths = film.units(), ClipPaths(folder / "cam0_160x120_30fps_20260101_000000_trial_7.mp4")
    clip = ClipFile(paths, film.FORMAT, film.track(), describe("cam0", order, units[0].meta, catalogue.owner.id, None))
    for unit in units:
        clip.add(unit)
    clip.close()
    filler, told = settings.folder / "filler", []
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as full:
            told.append(full.errno)
    try:
        catalogue.add(entry_of(OpenClip("cam0", clip, order, film.track(), 0).to_closed("over", intact=True)))
    except (LibraryError, OSError) as problem:
        told.append(str(problem))
    beside = [path.name for path in folder.iterdir()]
filler.unlink()  # and here another recorder starts
with Catalogue.of(settings) as catalogue:
    for path in find_unfiled(settings.paths.recordings, "cam0"):
        catalogue.add(entry_of(read_closed(path, "cam0", catalogue.owner)))
    rows = [asdict(entry) for entry in catalogue.find()]
    print(json.dumps({"told": told, "beside": beside, "rows": rows, "check": len(catalogue.check())}, default=str))
"""


@mounts
def test_on_a_really_full_disk_the_video_itself_keeps_what_its_description_would_say(tmp_path):
    """The description is written at the beginning, into the video: no room needs to be kept for the one beside it."""
    (tmp_path / "contents").mkdir()
    (tmp_path / "contents/config.toml").touch()
    (tmp_path / "disk").mkdir()
    command = with_disk(tmp_path / "disk", tmp_path / "contents", "rw,size=4m", os.sys.executable, "-c", ON_A_FULL_DISK)
    done = subprocess.run([*command, tmp_path / "disk"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["told"][0] == errno.ENOSPC and len(said["told"]) == 2, "the row and the description were refused"
    assert not [name for name in said["beside"] if name.endswith(".mp4.json")]
    (row,) = said["rows"]
    assert (row["protected"], row["label"], row["trigger"], row["frames"]) == (True, "trial_7", "manual", 100)
    assert row["companions"] == ["cam0_160x120_30fps_20260101_000000_trial_7_frame_timing.csv"] and said["check"] == 0


def write_film(folder, opener=DiskFile, frames=100):
    """Writes the whole film through the writer's thread. Returns: the clips in order, and the writer."""
    (folder / "config.toml").touch()
    settings, stop, own = Settings.load(folder / "config.toml", environ={}), Stop(), RecorderSettings()
    with Catalogue.of(settings) as catalogue:
        writer = ClipWriter("cam0", ClipFormat.of(own), Storage(settings, own, catalogue), stop, opener)
        writer.start()
        for unit in film.units(frames):
            until(lambda unit=unit: writer.put(QueuedUnit(unit, film.track())), 30)
        assert writer.close("over", 60)
    return sorted(settings.paths.recordings.rglob("*.mp4"), key=numbers), writer


def test_a_clip_ends_before_the_largest_file_and_the_next_one_begins_with_the_next_frame(tmp_path, monkeypatch):
    """On FAT a recording ended with an error at 4 GB, and what came until the retry was lost."""
    limit = 100_000
    monkeypatch.setattr("recorder.clips.storage.max_file_bytes_of", lambda _folder: limit)
    monkeypatch.setattr("recorder.clips.writer.FILE_SHARE", 0.4)  # of so small a file the rest holds no key frame more
    clips, _ = write_film(tmp_path)
    assert len(clips) > 1 and all(path.stat().st_size < limit for path in clips)
    assert [number for path in clips for number in numbers(path)] == list(range(1000, 1100))


class SmallFiles(DiskFile):
    """A file system whose largest file nobody knows before; the one that is too large is written up to there."""

    limit = 150_000

    def _write_some(self, descriptor, data, offset):
        if offset >= self.limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return super()._write_some(descriptor, data[: self.limit - offset], offset)


def test_a_limit_that_a_file_system_does_not_tell_is_learnt_and_what_it_costs_is_counted(tmp_path, monkeypatch):
    """A stick behind a NAS: the recording stopped for a second at each 4 GB, and no file said what was missing."""
    film.at_once(monkeypatch)
    monkeypatch.setattr("recorder.clips.writer.FILE_SHARE", 0.4)
    clips, writer = write_film(tmp_path, SmallFiles, 200)
    ids = [number for path in clips for number in numbers(path)]
    lines = [line for path in clips for line in rows(timing_of(path))]
    missing = sum(int(line["dropped_since_last"]) for line in lines)
    assert [int(line["frame_number"]) for line in lines] == ids and not writer.trouble
    assert len(clips) > 2 and missing == writer.unwritten > 0 and len(ids) + missing == 200
    assert sum(line["dropped_since_last"] != "0" for line in lines) == 1, "only the first file met the limit"


def test_a_bug_in_the_writing_thread_ends_the_process_with_an_error(tmp_path, caplog):
    """A recorder that takes frames and writes none would look alive."""

    def buggy(_path):
        raise ZeroDivisionError("a bug")

    (tmp_path / "config.toml").touch()
    settings, stop, own = Settings.load(tmp_path / "config.toml", environ={}), Stop(), RecorderSettings()
    with Catalogue.of(settings) as catalogue:
        writer = ClipWriter("cam0", ClipFormat.of(own), Storage(settings, own, catalogue), stop, buggy)
        writer.start()
        writer.put(QueuedUnit(film.units(1)[0], film.track()))
        assert stop.wait(10) and stop.failed
        assert writer.close("done", 10)
    assert "thread clips broke" in caplog.text and "ZeroDivisionError: a bug" in caplog.text


def test_the_same_trouble_with_other_numbers_is_no_news():
    retry = RetryState()
    assert retry.note_failure("disk full: 3.1 MB short of 20.0 MB", 0)
    assert not retry.note_failure("disk full: 2.9 MB short of 20.0 MB", 40)
    assert retry.trouble.startswith("disk full: 2.9")
    assert retry.note_failure("Read-only file system", 80)
    retry.end()
    assert retry.is_due and not retry.trouble, "nobody records any more"
    assert retry.note_success(80), "what was left over is adopted now"
    assert not retry.note_success(80)


# ---- real file systems, in a mount namespace of their own


def can_mount():
    probe = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="this host does not allow user namespaces")


class Disk:
    """A recorder whose recordings folder is a file system of its own."""

    def __init__(self, made, megabytes):
        self.made, self.folder = made, made.recordings
        self.folder.mkdir()
        script = (
            f"mount -t tmpfs -o size={megabytes}m none {self.folder} && "
            f"cd {ROOT} && exec {os.sys.executable} -m recorder --config {made.folder / 'config.toml'}"
        )
        self.process = subprocess.Popen(["unshare", "-Urm", "sh", "-c", script], stdin=subprocess.DEVNULL)
        made.processes.append(self.process)
        made.ready()

    @property
    def seen(self) -> Path:
        """The folder as the recorder sees it."""
        return Path(f"/proc/{self.process.pid}/root{self.folder}")

    def inside(self, *command):
        subprocess.run(
            ["nsenter", "-t", str(self.process.pid), "-U", "-m", "--preserve-credentials", *command], check=True
        )


@pytest.fixture
def filmed(rig):

    def make(fps=30.0, **recorder):
        made = rig(auto_start=True, **recorder)
        camera = made.camera(size=(640, 360), slots=128, noise=100)
        camera.begin_filming(fps)
        return made, camera

    return make


def says(made, text):
    until(lambda: text in made.log(), 30, made.log()[-3000:])


def growth(made, text, more, seconds=30):
    before = made.log().count(text)
    until(lambda: made.log().count(text) >= before + more, seconds, made.log()[-3000:])


@needs_mounts
def test_a_full_disk_costs_the_oldest_clips_and_recording_goes_on(filmed):
    rolling = {"mode": "rolling", "recording_duration_minutes": 1 / 60, "rolling_clips_count": 1000, "csv": False}
    made, _ = filmed(fps=10.0, **rolling)  # its ring holds 13 s: a recorder that others starve is not lapped
    disk = Disk(made, 9)
    growth(made, "deleted path=", 3, 60)
    growth(made, "recording began", 2)
    for clip in sorted(disk.seen.rglob("*.mp4"))[-2:]:  # the oldest may go in this instant
        ids = numbers(clip)
        assert ids == list(range(ids[0], ids[-1] + 1))
    usage = os.statvfs(disk.seen)
    assert usage.f_bavail > 0
    assert made.log().count("ERROR") <= 2, "the same trouble is told once a minute"


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(65536))


@needs_mounts
def test_a_disk_filled_by_others_is_reported_and_recording_resumes_when_there_is_room(filmed):
    made, _ = filmed()
    disk = Disk(made, 12)
    says(made, "recording began")
    fill(disk.seen / "others")
    says(made, "not recording reason=")
    for clip in disk.seen.rglob("*.mp4"):
        ids = numbers(clip)
        assert ids == list(range(ids[0], ids[-1] + 1))
    (disk.seen / "others").unlink()
    growth(made, "recording again", 1, 60)


@needs_mounts
def test_a_disk_that_turns_read_only_is_reported_and_used_again_when_it_can_be_written(filmed):
    made, _ = filmed(mode="rolling", recording_duration_minutes=1 / 60)
    disk = Disk(made, 50)
    says(made, "recording began")
    disk.inside("mount", "-t", "tmpfs", "-o", "ro", "none", str(disk.folder))
    says(made, "Read-only file system")
    disk.inside("umount", str(disk.folder))
    growth(made, "recording again", 1, 60)
    known = set(disk.seen.rglob("*.mp4"))
    growth(made, "recording ended", 2)
    assert max(len(numbers(clip)) for clip in set(disk.seen.rglob("*.mp4")) - known) > 10


TAKEN = {
    "the file is deleted": lambda part: part.unlink(),
    "the file is moved": lambda part: part.rename(part.parent.parent.parent / part.name),
    "the session folder is deleted": lambda part: shutil.rmtree(part.parent),
    "the recordings folder is moved": lambda part: part.parent.parent.rename(part.parent.parent.with_name("moved")),
}


@pytest.mark.parametrize(
    "taken", [next(iter(TAKEN)), *(pytest.param(one, marks=pytest.mark.slow) for one in [*TAKEN][1:])]
)
def test_a_file_that_is_taken_away_is_noticed_and_another_one_begun(filmed, taken):
    made, _ = filmed(fragment_s=0.2)
    made.start_hub()
    made.start()
    says(made, "recording began")
    (part,) = until(lambda: made.clips("*.mp4.part"), 10)
    until(lambda: part.stat().st_size > 10_000, 10)
    TAKEN[taken](part)
    growth(made, "was moved, deleted or unmounted", 1)
    growth(made, "recording again", 1)
    status = until(lambda: made.ask("record status").data.get("file"), 10)
    assert status and Path(status + ".part").exists()
    made.recorded(6)
    reply = made.ask("record stop")
    assert reply.ok and Path(reply.data["file"]).exists(), reply
    assert len(numbers(Path(reply.data["file"]))) == reply.data["frames"] > 5
    assert part.with_name(part.name.removesuffix(".part")) not in made.clips()


def test_a_recording_that_is_taken_away_at_its_end_is_not_claimed(filmed):
    made, _ = filmed(fragment_s=1.0)
    made.start_hub()
    made.start()
    says(made, "recording began")
    for _ in range(10):
        (part,) = until(lambda: made.clips("*.mp4.part"), 10)
        shutil.rmtree(made.recordings)
        if not (reply := made.ask("record stop")).ok:
            break
        # The machine was so busy that the next fragment was synced first: another file has begun since.
        assert Path(reply.data["file"]).is_file(), reply
        assert made.ask("record start").ok
    assert not reply.ok and not reply.data["file"], reply
    assert "deleted" in reply.text and part.name.removesuffix(".mp4.part") in reply.text, "the video or its CSV"
    assert "deleted" in made.ask("record status").text


def test_without_its_marker_file_nothing_is_recorded_into_the_empty_mount_point(filmed):
    made, _ = filmed(disk_marker=".shmcam-disk")
    made.start()
    made.ready()
    says(made, "not recording reason=")
    assert ".shmcam-disk is missing" in made.log() and "not mounted" in made.log()
    assert not made.recordings.exists() or not list(made.recordings.rglob("cam0_*"))
    made.recordings.mkdir(exist_ok=True)
    (made.recordings / ".shmcam-disk").touch()
    says(made, "recording began")
    assert made.log().count("not recording reason=") == 1, "the same trouble is told once a minute"


def test_a_refused_recording_leaves_no_trouble_once_it_is_stopped(filmed):
    """The reason stayed in the status until the next recording, which waited up to half a minute for its turn."""
    made, _ = filmed(disk_marker=".shmcam-disk")
    made.start_hub()
    made.start()
    made.ready()
    row = lambda: next(one for one in made.ask("status").data["processes"] if one["program"] == "recorder")  # noqa: E731
    until(lambda: ".shmcam-disk is missing" in row()["reason"] and row()["state"] == "waiting", 20, made.log)
    assert "nothing was written: " in (told := made.ask("record stop").text) and "is missing" in told
    until(lambda: (row()["state"], row()["reason"]) == ("idle", ""), 20, lambda: str(row()))
    made.recordings.mkdir(exist_ok=True)
    (made.recordings / ".shmcam-disk").touch()
    assert made.ask("record start").status == "recording_started"


def test_room_that_could_not_be_made_is_no_trouble_any_more_once_there_is_some(tmp_path):
    """It stayed in status and /healthz until the next recording."""
    (tmp_path / "config.toml").touch()
    settings = Settings.load(tmp_path / "config.toml", environ={})
    with Catalogue.of(settings) as catalogue:
        storage = Storage(settings, RecorderSettings(), catalogue)
        with pytest.raises(NotWritable, match="disk full"):
            storage.prepare(settings.paths.recordings, bytes_per_s=1e15)
        storage.make_room_again()
        assert storage.trouble, "its writer tries again"
        storage.is_wanted = False
        storage.make_room_again()
        assert not storage.trouble


def test_a_link_to_a_disk_that_is_away_is_followed_only_once_it_is_back(tmp_path):
    """`recordings` as a link to a USB disk that was not plugged in: its folders were made on the root disk."""
    (tmp_path / "recordings").symlink_to(tmp_path / "media/usb/clips")
    (tmp_path / "config.toml").write_text("[library]\nfree_reserve_mb = 1\nfree_reserve_percent = 0\n")
    settings = Settings.load(tmp_path / "config.toml", environ={})
    with Catalogue.of(settings) as catalogue:
        storage = Storage(settings, RecorderSettings(), catalogue)
        with pytest.raises(NotWritable, match="recordings is a link to"):
            storage.prepare(storage.recordings / "session_20260101_000000", 0.0)
        assert not (tmp_path / "media").exists()
        (tmp_path / "media/usb/clips").mkdir(parents=True)
        storage.prepare(storage.recordings / "session_20260101_000000", 0.0)
        assert (tmp_path / "media/usb/clips/session_20260101_000000").is_dir()


def test_a_bug_in_the_finishing_thread_ends_the_process_with_an_error(tmp_path, caplog):
    (tmp_path / "config.toml").touch()
    settings, stop, closed = Settings.load(tmp_path / "config.toml", environ={}), Stop(), queue.SimpleQueue()
    with Catalogue.of(settings) as catalogue:
        finisher = Finisher(
            *(settings, RecorderSettings(), "cam0"),
            marks=EventMarks(tmp_path / "marks.json"),
            catalogue=catalogue,
            closed=closed,
            notices=queue.SimpleQueue(),
            stop=stop,
        )
        closed.put(None)
        finisher.start()
        assert stop.wait(10) and stop.failed
        finisher.close(10)
    assert "thread finish broke" in caplog.text
