"""Whose a file is: only what this installation made is listed and deleted, whatever else lies on the disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from pathlib import Path

import av
import numpy as np
import pytest
from msgspec.structs import replace

from exporter.pictures import exif
from exporter.pictures.encode import encode_picture
from exporter.settings import ExportSettings
from recorder.clips.finish import move_index_to_front
from shm_ring import FrameMeta
from shm_ring.formats import geometry
from shmcam.config.settings import LABEL
from shmcam.library import Catalogue, Entry, LibraryError, archive, file_names, files
from shmcam.library.archive import build
from shmcam.library.catalogue import NOT_OURS
from shmcam.library.manifest import Span
from shmcam.library.retention import make_room, select_to_clean
from shmcam.library.sidecar import FILE, INSTALLATION, Owner, read_regular, sidecar_path_of
from shmcam.runtime.folder_checks import find_folder_problems
from shmcam.runtime.stop import Stop
from shmcam.video.disk_file import DiskFile
from shmcam.video.growing_mp4 import GrowingVideo, movflags_of
from tests.shmcam.library.conftest import STARTED, make_settings, on_disk

TAKEOUT = '{"title": "IMG_1.jpg", "photoTakenTime": {"timestamp": "1546300800"}}'
FOREIGN = (
    "wedding1.mp4", "Family/2019 Wedding/film01.mp4", "Family/VID_20191224_183000.mp4", "IMG_20190101_120000.jpg",
    "@eaDir/clip.mp4/SYNOVIDEO.jpg", "#recycle/old.mp4", "$RECYCLE.BIN/S-1/$R1.mp4", "lost+found/a_20200101.jpg",
    "System Volume Information/x_20200101.jpg", ".Trash-1000/files/a.mp4", "cam0_640x480_30fps_20260101_000000.mp4",
    "cam0_640x480_30fps_20260101_000000_frame_timing.csv", "20260101_000000_f7.jpg",
    "timelapse_cam0_20260101_000000.mp4", "a.npy",
    "session_20260101_000000/notes.txt", "DCIM/100/IMG_1.JPG", "c_20260101.mov", "page/manifest.json", "film.mp4.part",
)  # fmt: skip


def fill(folder: Path) -> dict[Path, bytes]:
    """Puts files of an owner there. Returns: them and their content."""
    for number, name in enumerate(FOREIGN):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            b'{"name": "my cameras", "files": []}' if name.endswith("manifest.json") else b"x" * (number + 1)
        )
    for name in ("wedding1.mp4", "IMG_1.jpg", "far_20200101.mov", "20260101_000000_f7.jpg", "list_20260101.npy"):
        (folder / f"{name}.json").write_text(TAKEOUT if "list" not in name else "[1]")
    old = time.time() - 9e6
    for path in folder.rglob("*"):
        os.utime(path, (old, old))
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "limit",
    ["clips_max_count=1", "pictures_max_count=1", "max_total_mb=1", "free_reserve_mb=10000000", "films_max_mb=1"],
)
def test_files_of_the_owner_get_no_row_and_outlive_every_limit(tmp_path, limit):
    """On a share with his own films `wedding1.mp4` became a row and was deleted for free space."""
    settings = make_settings(tmp_path, f"library.{limit}", "library.free_reserve_percent=0")
    before = fill(settings.paths.recordings) | fill(settings.paths.captures)
    with Catalogue.of(settings) as catalogue:
        ours = [
            catalogue.add(on_disk(settings, f"{n}{end}", 2_000_000, kind=kind))
            for n, (end, kind) in enumerate([(".mp4", "clip"), (".npy", "picture"), (".mp4", "timelapse")] * 2)
        ]
        for work in (catalogue.reconcile, catalogue.rebuild, lambda: catalogue.check(mend=True)):
            work()
            assert {entry.path for entry in catalogue.find()} == {entry.path for entry in ours}
        assert files.remove_leftovers(catalogue.folders, catalogue.owner) == []
        for kind in ("clip", "picture"):
            try:
                make_room(settings, catalogue, 1000, kind=kind)
            except OSError as problem:
                assert "not ours" in str(problem)
        for entry in catalogue.find():
            catalogue.delete(entry.id)
    assert {path: path.read_bytes() for path in before} == before


def test_a_file_of_another_installation_on_the_same_share_is_left_alone(tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    share = f"paths.recordings={tmp_path / 'share'}"
    one, two = (make_settings(folder, share, "library.clips_max_count=1") for folder in folders)
    with Catalogue.of(one) as first, Catalogue.of(two) as second:
        mine, others = first.add(on_disk(one, "a.mp4")), second.add(on_disk(two, "b.mp4"))
        assert (
            first.reconcile() == ([], [])
            and first.rebuild() == (1, 0)
            and [e.path for e in first.find()] == [mine.path]
        )
        with pytest.raises(LibraryError, match="nothing proves"):
            first.remove(replace(others, id=0))
        assert [e.path for e in make_room(one, first, 0, kind="clip")] == [mine.path] and others.path.exists()
        # an owner who has set up his Pi anew takes his old files over
        (folders[0] / "library.id").write_text(f"{first.owner.id}\n{second.owner.id}\n")
    with Catalogue.of(one) as again:
        assert [entry.path for entry in again.reconcile()[0]] == [others.path]


def test_the_id_stays_the_same_if_its_file_is_lost(settings):
    first = Owner.of(settings.paths.library)
    path = settings.paths.library.with_name("library.id")
    assert path.read_text() == f"{first.id}\n" and Owner.of(settings.paths.library) == first
    path.unlink()
    assert Owner.of(settings.paths.library) == first
    path.unlink()
    os.mkfifo(path)
    assert Owner.of(settings.paths.library) == first


def test_a_renamed_copy_is_the_owners(catalogue, saved, settings):
    """Somebody keeps his best pictures under names of his own; their EXIF still tells where they come from."""
    entry = saved("20260101_000000_f7.npy", kind="picture")
    for name in ("best.npy", "best_20260101.npy"):
        shutil.copy(entry.path, entry.path.with_name(name))
        shutil.copy(sidecar_path_of(entry.path), sidecar_path_of(entry.path.with_name(name)))
    assert catalogue.reconcile() == ([], []) and catalogue.rebuild() == (1, 0)
    catalogue.delete(catalogue.find()[0].id)
    assert files.remove_leftovers(catalogue.folders, catalogue.owner) == []
    assert sorted(path.name for path in settings.paths.captures.glob("*.npy")) == ["best.npy", "best_20260101.npy"]


@pytest.mark.parametrize(("label", "kind"), [("fox-1", "picture"), ("", "stack"), ("night", "stack"), ("", "snapshot")])
def test_a_renamed_picture_is_the_owners_whatever_date_its_name_bears(catalogue, settings, label, kind):
    """Their EXIF does not hold their name: each name with a date in it was taken for ours, counted and deleted."""
    folder = settings.paths.captures
    folder.mkdir(parents=True)
    name = {
        "picture": file_names.name_picture("", label, STARTED, 7),
        "stack": file_names.name_stack("cam0", label, STARTED, 7, count=16),
        "snapshot": file_names.name_snapshot("cam0", label, STARTED),
    }[kind]
    ours = [folder / f"{name}.jpg", folder / f"{name}_2.jpg"]
    entry = Entry(kind="stack" if kind == "stack" else "picture", camera="cam0", path=ours[0], started_utc_ns=STARTED,
                  first_frame=7, last_frame=7, label=label)  # fmt: skip
    meta = FrameMeta(7, 0, STARTED)
    tags = exif.tags_of(entry, meta, exif.describe(entry, meta, {INSTALLATION: catalogue.owner.id}))
    layout = geometry("gray", 16, 16)
    parts = encode_picture(np.zeros(256, np.uint8), layout, "jpg", tags, ExportSettings())
    stem, stamp = ours[0].stem, "20260101_000000"
    theirs = (f"wedding_{stamp}", f"{stem} (copy)", f"{stem}_edited", f"best {stem}", f"{stamp}_f8", "IMG_20260101")
    renamed = [folder / f"{given}.jpg" for given in (*theirs, f"x_{stem}")]
    for path in (*ours, *renamed):
        path.write_bytes(b"".join(parts))
    adopted, _ = catalogue.reconcile()
    assert sorted(row.path for row in adopted) == sorted(ours)
    for row in adopted:
        catalogue.delete(row.id)
    assert sorted(folder.glob("*.jpg")) == sorted(renamed)


def test_a_row_whose_file_was_replaced_deletes_nothing(catalogue, saved):
    entry = saved("a.npy", kind="picture")
    sidecar_path_of(entry.path).write_text(TAKEOUT)
    with pytest.raises(LibraryError, match="nothing proves"):
        catalogue.delete(entry.id)
    with pytest.raises(LibraryError, match="not a description of ours"):
        catalogue.protect(entry.id)
    assert entry.path.exists() and sidecar_path_of(entry.path).read_text() == TAKEOUT


def test_rows_that_an_earlier_version_gave_to_files_of_others_go_and_the_files_stay(catalogue, saved):
    """They counted towards the limits, were chosen first and refused each time: /healthz said 503 for ever."""
    ours, foreign, replaced = saved("a_20260101.npy", kind="picture", trigger="recovered"), saved(), saved()
    for entry in (foreign, replaced):
        sidecar_path_of(entry.path).write_text(TAKEOUT)
    catalogue.insert([replace(foreign, trigger="recovered", label="")])
    assert [entry.id for entry in catalogue.reconcile()[1]] == [foreign.id]
    assert [(entry.id, how) for entry, how in catalogue.check(mend=True)] == [(replaced.id, NOT_OURS)]
    assert [entry.id for entry in catalogue.find()] == [ours.id] and catalogue.check() == []
    assert foreign.path.exists() and replaced.path.exists()


def test_what_an_earlier_version_described_without_an_id_is_still_ours(catalogue, saved, settings):
    entry = saved("cam0_20260101_000000.mp4", label="fox")
    beside = sidecar_path_of(entry.path)
    old = {key: value for key, value in json.loads(beside.read_text()).items() if key not in (INSTALLATION, FILE)}
    beside.write_text(json.dumps(old))
    assert catalogue.rebuild() == (1, 0) and catalogue.find()[0].label == "fox"
    catalogue.delete(catalogue.find()[0].id)
    assert list(settings.paths.recordings.iterdir()) == []


def film(path: Path, about: dict[str, object], form: str = "grown") -> None:
    """Writes ten frames of a video that says this about itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = DiskFile(path)
    video = GrowingVideo(file, about, {"movflags": movflags_of("frag_every_frame", plain=form != "grown")})
    stream = video.container.add_stream("libx264", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(10):
        frame = av.VideoFrame.from_ndarray(np.full((72, 64), number, np.uint8), "yuv420p")
        frame.pts = number
        for packet in stream.encode(frame):
            video.mux(packet)
    for packet in stream.encode(None):
        video.mux(packet)
    video.finish()
    file.close()
    assert form != "index in front" or move_index_to_front(path, Stop())
    os.utime(path, (1, 1))


@pytest.mark.parametrize("form", ["grown", "closed", "index in front"])
def test_a_clip_without_a_description_beside_it_is_asked_itself(catalogue, settings, form):
    """A protected recording ended on a full disk: it came back unprotected, and its CSV stayed for ever."""
    path = settings.paths.recordings / "session_20260101_000000" / "cam0_64x48_10fps_20260101_000000.mp4"
    about = {
        "camera": "cam0", "kind": "event", "trigger": "motion", "label": "fox", "protect": True, "first_frame": 100,
        "captured_utc_ns": 10**18, INSTALLATION: catalogue.owner.id,
    }  # fmt: skip
    film(path, about, form)
    film(path.with_name("cam0_64x48_10fps_20260101_000001.mp4"), {**about, INSTALLATION: "another"}, form)
    film(path.with_name("cam0_64x48_10fps_20260101_000002.mp4"), {"encoder": "somebody's"}, form)
    csv = path.with_name("cam0_64x48_10fps_20260101_000000_frame_timing.csv")
    csv.write_text("frame_number\n")
    ((entry,), gone) = catalogue.reconcile()
    shown = (entry.kind, entry.trigger, entry.label, entry.protected, entry.frames, entry.last_frame, entry.companions)
    assert shown == ("clip", "motion", "fox", True, 10, 109, (csv.name,)) and gone == [] and entry.path == path
    catalogue.protect(entry.id, False)
    catalogue.delete(entry.id)
    assert not path.exists() and not csv.exists() and len(list(path.parent.iterdir())) == 2


def test_a_copy_of_a_video_under_another_name_is_the_owners(catalogue, settings):
    """What a video says about itself was enough, with any name that had a date in it."""
    clip = {"camera": "cam0", "kind": "event", "label": "fox", "captured_utc_ns": 10**18, "first_frame": 1}
    timelapse = {"camera": "cam0", "kind": "timelapse", "started_utc_ns": 10**18, "first_frame": 1}
    given = {
        "cam0_64x48_29.97fps_20260101_000000_fox.mp4": clip, "cam0_64x48_10.0fps_20260101_000000_2.mp4": clip,
        "timelapse_cam0_20260101_000000.mp4": timelapse, "timelapse_cam0_day_20260101_000000_3.mp4": timelapse,
    }  # fmt: skip
    renamed = {
        "birthday_20260101_000000.mp4": clip, "cam0_64x48_10.0fps_20260101_000000_fox (copy).mp4": clip,
        "cam0_64x48_10.0fps_20260101_000000_cut.mp4": clip, "best timelapse_cam0_20260101_000000.mp4": timelapse,
        "timelapse_cam0_20260101_000000 - Copy.mp4": timelapse,
    }  # fmt: skip
    for name, about in {**given, **renamed}.items():
        film(settings.paths.recordings / name, {**about, INSTALLATION: catalogue.owner.id})
    adopted, _ = catalogue.reconcile()
    assert sorted(row.path.name for row in adopted) == sorted(given)


def test_what_somebody_put_into_an_archive_stays_when_it_is_deleted(catalogue, saved, settings):
    saved("a.npy", kind="picture")
    entry = build(catalogue, settings.paths.archives, "trial", Span(), config="x")
    folder = entry.path.parent
    (folder / "captures" / "notes.txt").write_text("mine")
    catalogue.delete(entry.id)
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*")] == ["captures", "captures/notes.txt"]

    def killed(done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(catalogue, settings.paths.archives, "half", Span(), progress=killed)
    (settings.paths.archives / "half" / "mine.txt").write_text("mine")
    archive.discard(settings.paths.archives / "half", catalogue.folders)
    assert [path.name for path in (settings.paths.archives / "half").iterdir()] == ["mine.txt"]


def test_an_archive_that_was_renamed_is_the_owners(catalogue, saved, settings):
    saved("a.npy", kind="picture")
    entry = build(catalogue, settings.paths.archives, "trial", Span())
    kept = entry.path.parent.rename(settings.paths.archives / "for my parents")
    assert catalogue.reconcile() == ([], [entry])
    with pytest.raises(LibraryError, match="nothing proves"):
        catalogue.remove(replace(entry, path=kept / "manifest.json"))
    assert (kept / "captures" / "a.npy").exists()


def test_a_label_is_found_again_and_is_no_option_whatever_it_begins_with(catalogue, saved):
    """Pictures with the label `_fox` vanished at a rebuild, `-fox` looked like an option."""
    entry = saved("_fox_20260101_000000_f7.npy", kind="picture", label="_fox")
    assert catalogue.rebuild() == (1, 0) and catalogue.check() == [] and catalogue.find()[0].path == entry.path
    for word in ("_fox", "-fox", "--fox", ".fox", ""):
        with pytest.raises(ValueError, match="the first a letter or digit"):
            archive.check_name(word, is_new=True)
        assert re.fullmatch(LABEL, word) is None
    assert re.fullmatch(LABEL, "7_fox-") and archive.check_name("a" * 64)


def test_special_files_in_our_folders_hold_nobody_up(catalogue, saved, settings):
    """A FIFO in the recordings held the exporter's start for ever."""
    entry = saved("session_20260101_000000/cam0_20260101.mp4")
    folder = entry.path.parent
    for name in ("x_20260101.mp4", "x_20260101.jpg", "y_20260101.npy.json", "z_20260101.npy"):
        os.mkfifo(folder / name)
    (folder / "y_20260101.npy").write_bytes(b"x")
    (folder / "dangling_20260101.mp4").symlink_to(folder / "nowhere")
    (folder / "link_20260101.mp4").symlink_to(entry.path)
    (folder / "link_20260101.mp4.json").symlink_to(sidecar_path_of(entry.path))
    with (folder / "big_20260101.mp4.json").open("wb") as file:
        file.truncate(3 << 30)
    (folder / "big_20260101.mp4").write_bytes(b"x")
    os.mknod(folder / "s_20260101.mp4", stat.S_IFSOCK | 0o600)
    assert catalogue.reconcile() == ([], []) and catalogue.check() == [] and catalogue.rebuild() == (1, 0)
    assert files.remove_leftovers(catalogue.folders, catalogue.owner) == []
    assert read_regular(folder / "z_20260101.npy", 10) is None and read_regular(Path("/dev/zero"), 10) is None


@pytest.mark.parametrize("place", ["x/../recordings", "./recordings/", "link"])
def test_a_configured_folder_with_dots_or_a_link_is_one_whose_files_can_be_deleted(tmp_path, place):
    (tmp_path / "recordings").mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "recordings")
    settings = make_settings(tmp_path, f"paths.recordings={place}", "library.clips_max_count=1")
    assert settings.paths.recordings == (tmp_path / "recordings").resolve()
    with Catalogue.of(settings) as catalogue:
        entries = [catalogue.add(on_disk(settings, f"{n}.mp4")) for n in range(3)]
        assert [e.id for e in make_room(settings, catalogue, 0, kind="clip")] == [1, 2, 3]
        assert not any(entry.path.exists() for entry in entries)


@pytest.fixture
def usb(tmp_path):
    """A disk to which the folder of recordings is a link, with three rows as an earlier version wrote them."""
    disk = tmp_path / "USB"
    (disk / "recordings").mkdir(parents=True)
    home = tmp_path / "home"
    home.mkdir()
    (home / "recordings").symlink_to(disk / "recordings")
    settings = make_settings(home)
    with Catalogue.of(settings) as catalogue:
        for number in range(3):
            catalogue.add(on_disk(settings, f"{number}.mp4", protected=number == 2))
        catalogue.write(lambda db: db.execute("UPDATE entries SET path = 'recordings/' || (id - 1) || '.mp4'"))
        yield settings, catalogue, disk


def test_rows_of_a_linked_folder_follow_the_link(usb):
    """After the upgrade each file had two rows, and the older one could not be deleted."""
    _, catalogue, disk = usb
    catalogue.insert([replace(catalogue.get(3), path=disk / "recordings" / "2.mp4")])  # an upgrade before this one
    assert catalogue.reconcile() == ([], []) and catalogue.check() == []
    rows = [(entry.id, entry.path.name, entry.protected) for entry in catalogue.find(newest_first=False)]
    assert rows == [(1, "0.mp4", False), (2, "1.mp4", False), (3, "2.mp4", True)]
    catalogue.delete(1)
    assert not (disk / "recordings" / "0.mp4").exists() and catalogue.rebuild() == (2, 0)


def test_limits_and_delete_forget_no_row_below_a_link_whose_disk_is_away(usb):
    """They forgot its rows and told that the files were deleted; back again, all files were new and of age zero."""
    settings, catalogue, disk = usb
    catalogue.reconcile()
    picture = catalogue.add(on_disk(settings, "p.npy", kind="picture"))
    told = []
    catalogue.on_deleted = lambda **fields: told.append(fields)
    disk.rename(disk.with_name("unplugged"))
    limited = make_settings(settings.folder, "library.clips_max_count=1", "library.clips_max_days=0.000000001")
    assert select_to_clean(limited, catalogue) == make_room(limited, catalogue, 0, kind="clip") == []
    with pytest.raises(LibraryError, match=r"0\.mp4: its disk is not mounted"):
        catalogue.delete(1)
    assert [entry.id for entry in catalogue.find(newest_first=False)] == [1, 2, 3, picture.id] and told == []
    full = make_settings(settings.folder, "library.max_total_mb=1")
    big = catalogue.add(on_disk(settings, "q.npy", 999_500, kind="picture"))
    assert make_room(full, catalogue, 0) == [picture], "its clips do not count either"
    disk.with_name("unplugged").rename(disk)
    assert catalogue.reconcile() == ([], [])
    catalogue.delete(1)
    assert [entry.id for entry in catalogue.find(newest_first=False)] == [2, 3, big.id]


def test_rows_below_a_link_whose_disk_is_away_are_kept(usb):
    """All of its rows were forgotten, because only a folder that is no link was known to be away."""
    settings, _, disk = usb
    disk.rename(disk.with_name("unplugged"))
    again = make_settings(settings.folder)
    assert again.paths == settings.paths and again.paths.recordings == disk / "recordings"
    with Catalogue.of(again) as catalogue:
        assert catalogue.reconcile() == ([], []) and catalogue.rebuild() == (0, 3)
        assert {entry.path.parent for entry in catalogue.find()} == {disk / "recordings"}
        with pytest.raises(OSError, match=r"home/recordings is a link to .*USB/recordings, which is not there"):
            make_room(again, catalogue, 0, again.paths.recordings, kind="clip")
        assert find_folder_problems(again)[0].path == settings.folder / "recordings" and not disk.exists()


def test_a_session_that_was_moved_and_linked_is_the_owners(catalogue, saved, settings, tmp_path):
    """Limits and `delete` followed the link, and deleted what lay there."""
    session = settings.paths.recordings / "session_20260101_000000"
    clip = saved(f"{session.name}/cam0_20260101_000000.mp4", companions=("cam0_20260101_000000.csv",))
    clip.path.with_suffix(".csv").touch()
    elsewhere = tmp_path / "other disk"
    session.rename(elsewhere)
    session.symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    assert len(before) == 3
    with pytest.raises(LibraryError, match="not inside"):
        catalogue.delete(clip.id)
    assert make_room(make_settings(tmp_path, "library.clips_max_count=1"), catalogue, 1, kind="clip") == []
    assert [how for _, how in catalogue.check()] == ["its file is not one of ours; only the row goes"]
    assert catalogue.reconcile() == ([], [clip]) and sorted(elsewhere.iterdir()) == before


def test_a_folder_in_the_place_of_a_companion_stays_and_holds_nothing_up(catalogue, saved):
    clip = saved("cam0_20260101_000000.mp4", companions=("cam0_20260101_000000.csv",))
    (clip.path.with_suffix(".csv") / "mine").mkdir(parents=True)
    catalogue.delete(clip.id)
    assert catalogue.find() == [] and not clip.path.exists() and (clip.path.with_suffix(".csv") / "mine").exists()


@pytest.mark.parametrize("how", ["start", "limit"])
def test_a_clip_that_is_renamed_keeps_its_frame_timing(catalogue, saved, how):
    """Its CSV was deleted at the next start, with the description of a clip that was no longer there."""
    clip = saved("cam0_20260101_000000.mp4", companions=("cam0_20260101_000000_frame_timing.csv",))
    other = saved("cam0_20260101_000001.mp4")
    timing = clip.path.with_name(clip.companions[0])
    timing.write_text("frame_number\n1\n")
    clip.path.rename(clip.path.with_name("fox.mp4"))
    if how == "start":
        catalogue.reconcile()
        files.remove_leftovers(catalogue.folders, catalogue.owner)
    else:
        catalogue.remove(clip, "limit")
    left = {path.name for path in timing.parent.iterdir()}
    assert left == {timing.name, "fox.mp4", other.path.name, f"{other.path.name}.json"}
    assert catalogue.find() == [other]


@pytest.mark.parametrize("after", range(4))
def test_killed_while_it_deletes_a_clip_it_leaves_nothing_for_ever(catalogue, saved, monkeypatch, after):
    other = saved("cam0_20260101_000001.mp4")  # an empty folder would be one whose disk is away
    clip = saved("cam0_20260101_000000.mp4", companions=("a.csv", "b.csv"))
    for name in clip.companions:
        clip.path.with_name(name).write_text("x")
    unlink, calls = Path.unlink, []

    def die(path, missing_ok=False):
        calls.append(path)
        if len(calls) > after:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(Path, "unlink", die)
        catalogue.remove(clip, "limit")
    catalogue.reconcile()
    files.remove_leftovers(catalogue.folders, catalogue.owner)
    for entry in catalogue.find()[:-1]:  # what still has a row goes by the next limit
        catalogue.remove(entry, "limit")
    assert catalogue.find() == [other]
    assert {path.name for path in clip.path.parent.iterdir()} == {other.path.name, f"{other.path.name}.json"}


def test_a_leftover_that_cannot_be_removed_keeps_no_other_one(catalogue, saved, monkeypatch):
    for name in ("a_20260101.npy", "b_20260101.npy"):
        saved(name, kind="picture").path.unlink()
    unlink = Path.unlink

    def refuse(path, missing_ok=False):
        if path.name.startswith("a_"):
            raise PermissionError(13, "another user's folder")
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", refuse)
        assert [path.name for path in files.remove_leftovers(catalogue.folders, catalogue.owner)] == [
            "b_20260101.npy.json"
        ]
    assert len(files.remove_leftovers(catalogue.folders, catalogue.owner)) == 1
