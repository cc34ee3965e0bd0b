"""Archives: linked where possible, summed, resumed, verified; and names that lead nowhere else."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from shmcam.cli import library
from shmcam.config.settings import LONG_NAME, Settings
from shmcam.library import Catalogue, EntryProtected, LibraryError, NoRoom, archive, manifest
from shmcam.library.archive import build, check_name
from shmcam.library.manifest import JOURNAL, Span, verify
from shmcam.library.retention import select_due
from shmcam.library.settings import LibrarySettings
from tests.mounts import closed
from tests.shmcam.library.conftest import STARTED, on_disk

SECOND = 10**9


def traversals() -> list[str]:
    """200 ways out of a folder."""
    seeds = [
        "../x", "..", ".", "/etc/passwd", "a/b", "a\\b", "..\\x", "%2e%2e%2fx", "%2e%2e/x", "..%2f", "..%5c",
        "%00", "x\x00", "\x00", "x\n", "x\r", "\tx", " ", "", "x y", "~root", "~/x", "$HOME", "`id`", "$(id)",
        "x;id", "x|id", "x&id", "x>y", "x<y", "*", "?", "[a]", "{a,b}", "x:y", "C:\\x", "\\\\host\\x",
        "file:///x", "x#y", "x%y", "x=y", "x+y", "x,y", "x'y", 'x"y', "\uff0e\uff0e\uff0fx", "\u2025/x",
        "\u2024\u2024/x", "\u2215etc", "\u2044etc", "\uff58", "\xe9", "x\u202ey", "x\u200by", "\ufeffx",
        "\U0001f4a5", "x.jpg", ".x", "x.", "con.txt", "....//x", "..;/x", "..%c0%af", "..%252f", "%252e%252e",
        "/..", "//", "/", "./x", "x/.", "-" * 65, "a" * 65, "a" * 4096,
    ]  # fmt: skip
    wraps = ("{}", "a{}", "{}a", "../{}", "{}/..")
    every = dict.fromkeys(wrap.format(seed) for seed in seeds for wrap in wraps)
    return [name for name in every if not re.fullmatch(LONG_NAME, name)][:260]


def test_more_than_200_traversal_names_are_refused():
    names = traversals()
    assert len(names) >= 200
    for name in names:
        with pytest.raises(ValueError, match=r"1\.\.64 of A-Z"):
            check_name(name, is_new=True)
    for name in ("a", "A-Z_09", "x" * 32, "0-", "0_"):
        assert check_name(name, is_new=True) == name


def test_an_archive_of_a_former_release_keeps_its_name():
    for name in ("-x", "_x"):
        assert check_name(name) == name
    for name in set(traversals()) - {"-x", "_x"}:
        if not re.fullmatch("[A-Za-z0-9_-]{1,64}", name):
            with pytest.raises(ValueError, match=r"1\.\.64 of A-Z"):
                check_name(name)


@pytest.fixture
def library_of_six(saved, settings):
    (settings.paths.recordings / "session_1").mkdir(parents=True)
    entries = [saved(f"session_1/c{n}.mp4", size=5000 + n, companions=(f"c{n}.csv",)) for n in range(3)]
    for entry in entries:
        entry.path.with_suffix(".csv").write_text("a,b\n")
    return entries + [saved(f"p{n}.npy", kind="picture", size=700, camera="cam1") for n in range(3)]


def test_an_archive_holds_links_sums_a_manifest_and_the_configuration(catalogue, settings, library_of_six):
    seen = []
    entry = build(
        catalogue, settings.paths.archives, "trial_7", Span(), config="[x]\n", progress=lambda *a: seen.append(a)
    )
    folder = settings.paths.archives / "trial_7"
    listed = json.loads((folder / "manifest.json").read_text())
    assert entry.path == folder / "manifest.json" and entry.kind == "archive" and entry.label == "trial_7"
    assert len(listed["entries"]) == 6 and len(listed["files"]) == 6 + 3 + 6  # media, csv, sidecars
    assert all(item["linked"] for item in listed["files"]) and listed["cameras"] == ["cam0", "cam1"]
    clip = folder / "recordings/session_1/c0.mp4"
    assert clip.samefile(library_of_six[0].path)
    sums = {item["file"]: item["sha256"] for item in listed["files"]}
    done = subprocess.run(["sha256sum", str(clip)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == sums["recordings/session_1/c0.mp4"]
    assert (folder / "config.toml").read_text() == "[x]\n" and not (folder / JOURNAL).exists()
    assert seen[0] == (0, 15) and seen[-1] == (15, 15)
    assert verify(folder) == []


def test_only_the_span_and_the_cameras_asked_for(catalogue, settings, library_of_six):
    span = Span(STARTED + SECOND, STARTED + 4 * SECOND, ())
    build(catalogue, settings.paths.archives, "part", span)
    listed = json.loads((settings.paths.archives / "part/manifest.json").read_text())
    assert [Path(one["file"]).name for one in listed["entries"]] == ["c1.mp4", "c2.mp4", "p0.npy", "p1.npy"]
    build(catalogue, settings.paths.archives, "cam1", Span(cameras=("cam1",)))
    assert {path.name for path in (settings.paths.archives / "cam1/captures").iterdir()} >= {"p0.npy", "p2.npy"}
    with pytest.raises(ValueError, match="nothing of that span"):
        build(catalogue, settings.paths.archives, "none", Span(until_utc_ns=1))
    assert not (settings.paths.archives / "none").exists()


def test_where_links_are_impossible_files_are_copied(catalogue, settings, library_of_six, monkeypatch):
    monkeypatch.setattr(archive, "_link", lambda _source, _target: False)
    build(catalogue, settings.paths.archives, "copies", Span())
    folder = settings.paths.archives / "copies"
    copied = folder / "recordings/session_1/c0.mp4"
    assert not copied.samefile(library_of_six[0].path) and copied.read_bytes() == library_of_six[0].path.read_bytes()
    assert verify(folder) == [] and not any(
        i["linked"] for i in json.loads((folder / "manifest.json").read_text())["files"]
    )


@pytest.mark.parametrize("after", [0, 1, 5, 9, 14])
def test_an_interrupted_archive_goes_on_where_it_was(after, catalogue, settings, library_of_six, monkeypatch):
    def give_up(done: int, _total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(catalogue, settings.paths.archives, "trial", Span(), progress=give_up)
    folder = settings.paths.archives / "trial"
    assert not (folder / "manifest.json").exists()
    with (folder / JOURNAL).open("a") as journal:
        journal.write('{"file": "half a li')  # what a kill in mid-write leaves
    summed = []
    real = manifest.hash_file
    monkeypatch.setattr(archive, "hash_file", lambda path: summed.append(path) or real(path))
    build(catalogue, settings.paths.archives, "trial", Span())
    assert len(summed) == 15 - after
    assert verify(folder) == []


def test_the_same_name_again_adds_what_is_new(catalogue, settings, library_of_six, saved):
    first = build(catalogue, settings.paths.archives, "trial", Span())
    saved("later.npy", kind="picture")
    second = build(catalogue, settings.paths.archives, "trial", Span())
    assert first.id == second.id and second.bytes > first.bytes
    assert (settings.paths.archives / "trial/captures/later.npy").exists() and verify(
        settings.paths.archives / "trial"
    ) == []


def test_the_same_name_again_keeps_the_archive_protected(catalogue, settings, library_of_six, saved):
    """Its manifest said that it is not, so that the next rebuild gave it back to retention."""
    first = build(catalogue, settings.paths.archives, "trial", Span())
    catalogue.protect(first.id)
    saved("later.npy", kind="picture")
    second = build(catalogue, settings.paths.archives, "trial", Span())
    assert second.protected and json.loads(second.path.read_text())["protected"] and catalogue.check() == []
    catalogue.rebuild()
    with pytest.raises(EntryProtected):
        catalogue.delete(first.id)


def test_the_same_name_again_keeps_what_is_told_of_originals_that_are_gone(catalogue, settings, library_of_six, saved):
    first = build(catalogue, settings.paths.archives, "trial", Span())
    catalogue.delete(library_of_six[0].id)
    saved("later.npy", kind="picture")
    second = build(catalogue, settings.paths.archives, "trial", Span())
    listed = json.loads(second.path.read_text())
    assert "recordings/session_1/c0.mp4" in {one["file"] for one in listed["entries"]} and len(listed["entries"]) == 7
    assert second.started_utc_ns == first.started_utc_ns and second.frames == 7 and verify(second.path.parent) == []


def test_an_archive_whose_list_could_not_be_read_again_is_refused_before_its_first_file(
    catalogue, settings, library_of_six, saved, monkeypatch
):
    """117,000 pictures were brought in, and the archive could not be verified, listed or extended ever after."""
    archives = settings.paths.archives
    first = build(catalogue, archives, "trial", Span(cameras=("cam0",)))
    monkeypatch.setattr(manifest, "MAX_MANIFEST_BYTES", first.path.stat().st_size)
    assert build(catalogue, archives, "trial", Span(cameras=("cam0",))).id == first.id, "as large as it may be"
    before = sorted(archives.rglob("*"))
    for name, count in (("trial", 15), ("other", 15)):
        with pytest.raises(ValueError, match=rf"archive {name}: {count} files .* MB; take a shorter span"):
            build(catalogue, archives, name, Span())
    assert sorted(archives.rglob("*")) == before and verify(first.path.parent) == []


def test_copies_ask_for_room_first_and_spare_what_is_being_archived(catalogue, settings, library_of_six, monkeypatch):
    asked = []

    def room(need: int, spared: Collection[Path]) -> None:
        asked.append(need)
        assert {entry.path for entry in library_of_six} == spared
        if len(asked) == 3:
            raise NoRoom(errno.ENOSPC, "full")

    build(catalogue, settings.paths.archives, "links", Span(), room=room)
    assert asked == []
    monkeypatch.setattr(archive, "_link", lambda _source, _target: False)
    with pytest.raises(NoRoom):
        build(catalogue, settings.paths.archives, "copies", Span(), room=room)
    assert asked[0] == 5000 and not (settings.paths.archives / "copies/manifest.json").exists()
    build(catalogue, settings.paths.archives, "copies", Span(), room=room)
    assert len(asked) == 3 + 15 - 2 and verify(settings.paths.archives / "copies") == []


@pytest.fixture
def side_by_side(tmp_path) -> Settings:
    """Archives beside the clips, on one stick."""
    config = tmp_path / "config.toml"
    config.write_text('[paths]\narchives = "usb"\nrecordings = "usb/recordings"\n[library]\nfree_reserve_mb = 1\n')
    return Settings.load(config, environ={})


def test_an_archive_takes_no_folder_that_is_something_else(side_by_side):
    archives = side_by_side.paths.archives
    with Catalogue.of(side_by_side) as catalogue:
        clip = catalogue.add(on_disk(side_by_side, "a.mp4"))
        (archives / "photos").mkdir()
        (archives / "photos" / "mine.txt").touch()
        (archives / "linked").symlink_to(archives / "recordings")
        for name in ("recordings", "photos", "linked"):
            with pytest.raises(ValueError, match="is not an archive's folder"):
                build(catalogue, archives, name, Span())
            assert name not in archive.find_unfinished(archives)
        (archives / "recordings" / JOURNAL).touch()  # of an earlier version
        with pytest.raises(LibraryError, match="a folder of the library"):
            archive.discard(archives / "recordings", catalogue.folders)
        assert clip.path.exists() and catalogue.check() == [] and catalogue.rebuild() == (1, 0)
        (archives / "begun").mkdir()
        assert build(catalogue, archives, "begun", Span()).label == "begun"


def test_an_archive_beside_a_library_that_cannot_be_written_is_whole_and_gets_its_row_later(
    catalogue, settings, library_of_six
):
    with closed():
        entry = build(catalogue, settings.paths.archives, "trial", Span())
        assert entry.id == 0 and catalogue.missed.is_set() and verify(entry.path.parent) == []
        assert archive.find_unfinished(settings.paths.archives) == []
    catalogue.reconcile()
    assert [one.path for one in catalogue.find(kinds=["archive"])] == [entry.path]


def test_verify_names_every_kind_of_damage(catalogue, settings, library_of_six):
    build(catalogue, settings.paths.archives, "trial", Span())
    folder = settings.paths.archives / "trial"
    (folder / "captures/p0.npy").unlink()
    for name, data in (("p1.npy", b"x" * 700), ("p2.npy", b"short")):
        (folder / f"captures/{name}").unlink()
        (folder / f"captures/{name}").write_bytes(data)
    (folder / "captures/stranger.txt").write_text("?")
    assert sorted(verify(folder)) == [
        "changed: captures/p1.npy",
        "missing: captures/p0.npy",
        "not in the manifest: captures/stranger.txt",
        "size 5 instead of 700: captures/p2.npy",
    ]
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="missing, damaged"):
        verify(folder)


def test_the_log_of_a_session_goes_with_its_clips_as_a_copy(catalogue, settings, saved):
    """It grows while the session runs; a link would no longer match its sum."""
    session = settings.paths.recordings / "trial_20261130_101500"
    session.mkdir(parents=True)
    (session / "session.log").write_text("begun\n")
    for number in range(2):
        saved(f"{session.name}/c{number}.mp4", size=5000)
    build(catalogue, settings.paths.archives, "a", Span())
    (session / "session.log").write_text("begun\nended\n")
    copy = settings.paths.archives / "a" / "recordings" / session.name / "session.log"
    assert copy.read_text() == "begun\n" and verify(settings.paths.archives / "a") == []
    build(catalogue, settings.paths.archives, "a", Span())
    assert copy.read_text() == "begun\nended\n" and verify(settings.paths.archives / "a") == []


def test_a_deleted_original_stays_in_the_archive(catalogue, settings, library_of_six):
    build(catalogue, settings.paths.archives, "trial", Span())
    catalogue.delete(library_of_six[0].id)
    assert verify(settings.paths.archives / "trial") == []


def test_archives_are_rebuilt_protected_and_cleaned_by_their_own_rule(catalogue, settings, library_of_six):
    for name in ("one", "two", "three"):
        build(catalogue, settings.paths.archives, name, Span())
    rows = {entry.label: entry for entry in catalogue.find(kinds=["archive"])}
    catalogue.protect(rows["one"].id)
    before = {entry.path: (entry.bytes, entry.protected, entry.started_utc_ns) for entry in catalogue.find()}
    catalogue.rebuild()
    assert {entry.path: (entry.bytes, entry.protected, entry.started_utc_ns) for entry in catalogue.find()} == before
    gone = select_due(catalogue, LibrarySettings(free_reserve_mb=0, archives_max_count=2, max_total_mb=1))
    assert [entry.label for entry in gone] == ["two"] or [entry.kind for entry in gone].count("archive") == 1
    for entry in gone:
        if entry.kind == "archive":
            catalogue.remove(entry)
            assert not entry.path.parent.exists()
    assert all(entry.path.exists() for entry in library_of_six)


def run_cli(settings, *words: str, main=library.main) -> int:
    return main(["--config", str(settings.path), *words])


def test_the_command_line_lists_shows_protects_deletes_checks_and_rebuilds(catalogue, settings, library_of_six, capsys):
    assert run_cli(settings, "list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert run_cli(settings, "--json", "list", "--kind", "picture", "--limit", "2") == 0
    assert [row["id"] for row in json.loads(capsys.readouterr().out)] == [6, 5]
    assert run_cli(settings, "show", "1") == 0 and "kind: clip" in capsys.readouterr().out
    assert run_cli(settings, "protect", "1", "2") == 0 and run_cli(settings, "delete", "1") == 1
    assert "unprotect 1 first" in capsys.readouterr().err
    assert run_cli(settings, "unprotect", "1") == 0 and run_cli(settings, "delete", "1") == 0
    library_of_six[2].path.unlink()
    assert run_cli(settings, "check") == 1 and "no file" in capsys.readouterr().out
    assert run_cli(settings, "check", "--mend") == 0 and run_cli(settings, "check") == 0
    assert run_cli(settings, "rebuild") == 0
    assert run_cli(settings, "show", "999") == 1 and "no entry 999" in capsys.readouterr().err
    assert run_cli(settings, "list", "--since", "sometime") == 1 and "expected ISO 8601" in capsys.readouterr().err


def test_the_command_line_tells_a_camera_of_the_past_from_one_that_never_was(settings, saved, capsys):
    """It said "nothing found" of both."""
    saved(camera="roof")
    assert run_cli(settings, "list", "--camera", "roof") == 0 and "roof" in capsys.readouterr().out
    for word in ("list", "timeline"):
        assert run_cli(settings, word, "--camera", "nocam") == 2
        assert capsys.readouterr() == ("", "ERROR: no camera 'nocam'; cameras: cam0\n")


def test_the_command_line_verifies_archives(catalogue, settings, library_of_six, capsys):
    build(catalogue, settings.paths.archives, "trial", Span())
    assert run_cli(settings, "verify", "trial", main=library.archive_main) == 0
    assert capsys.readouterr().out == "trial: ok\n"
    (settings.paths.archives / "trial/captures/p0.npy").unlink()
    assert run_cli(settings, "verify", main=library.archive_main) == 1
    assert "trial: missing: captures/p0.npy" in capsys.readouterr().out
    assert run_cli(settings, "verify", "../x", main=library.archive_main) == 1


def test_a_missing_config_is_exit_78(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "shmcam.cli.library", "--config", str(tmp_path / "no.toml"), "list"], capture_output=True
    )
    assert done.returncode == 78 and b"Traceback" not in done.stderr
