"""Files and wishes of anybody: none stops the library, and none makes it delete what is not its own."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from msgspec.structs import replace

from shmcam.cli import library
from shmcam.imaging import tiff
from shmcam.imaging.png import encode_chunk
from shmcam.imaging.tiff import Tag
from shmcam.library import Catalogue, LibraryError, NoSuchEntry, files, sidecar
from shmcam.library.archive import build
from shmcam.library.manifest import Span, verify
from shmcam.library.sidecar import USER_COMMENT_ASCII, Owner, write_sidecar
from shmcam.library.time_parsing import parse_instant_ns
from shmcam.runtime.atomic_files import open_atomic
from tests.shmcam.library.conftest import on_disk

DESCRIPTIONS = [
    '{"kind": "clip", "camera": "cam0", "started_utc_ns": 1e30}',
    '{"kind": "clip", "camera": "cam0", "started_utc_ns": 1, "duration_s": NaN}',
    '{"kind": "clip", "camera": "cam0", "started_utc_ns": 1, "duration_s": Infinity}',
    '{"kind": "clip", "camera": "cam0", "started_utc_ns": 1, "frames": 99999999999999999999}',
    '{"kind": "clip", "camera": "cam0", "started_utc_ns": 1, "score": Infinity}',
    '{"kind": "clip", "camera": "cam0", "started_utc_ns": 1, "label": "\\ud800"}',
    '{"kind": "clip", "camera": "cam0", "started_utc_ns": 1, "companions": [["x"]]}',
    '{"kind": "clip", "camera": "cam0", "started_utc_ns": [1]}',
    '["kind"]',
    "nonsense",
]


@pytest.mark.parametrize("text", ["9999-12-31", "1600-01-01", "999999999w", "9999999h"])
def test_a_time_that_no_row_can_have_is_without_limit(text, catalogue, saved):
    entry = saved()
    at = parse_instant_ns(text, entry.started_utc_ns)
    later = text.startswith("9999-")
    assert [e.id for e in catalogue.find(since_utc_ns=at)] == ([] if later else [entry.id])
    assert [e.id for e in catalogue.find(until_utc_ns=at)] == ([entry.id] if later else [])


def test_numbers_that_no_row_can_have_are_no_rows(catalogue, saved):
    saved()
    for number in (1 << 63, (1 << 64) - 1, 10**30, -(10**30), 0):
        for work in (catalogue.get, catalogue.protect, catalogue.delete):
            with pytest.raises(NoSuchEntry):
                work(number)
    assert len(catalogue.find(limit=10**30)) == 1


def test_strange_files_are_left_alone_and_stop_nobody(catalogue, saved, settings):
    known = [saved(), saved("a.npy", kind="picture")]
    captures = settings.paths.captures
    for number, text in enumerate(DESCRIPTIONS):
        on_disk(settings, f"strange{number}.npy", kind="picture")
        (captures / f"strange{number}.npy.json").write_text(text)
    on_disk(settings, "99991231_235959_f1.npy", kind="picture")
    os.utime(on_disk(settings, "late_20261121.npy", kind="picture").path, (2**40, 2**40))
    Path(os.fsdecode(os.fsencode(captures) + b"/caf\xe9_20261121.npy")).write_bytes(b"latin-1")
    renamed = Path(os.fsdecode(os.fsencode(captures) + b"/session_20261121_\xff"))
    renamed.mkdir()
    path = saved("moved_20261121.npy", kind="picture").path
    for file in captures.glob("moved*"):
        file.rename(renamed / file.name)
    count = len(list(captures.iterdir()))
    assert [entry.path for entry in catalogue.reconcile()[1]] == [path]
    assert catalogue.reconcile() == ([], []) and catalogue.check() == [] and catalogue.rebuild() == (2, 0)
    assert files.remove_leftovers(catalogue.folders, catalogue.owner) == []
    assert {entry.path for entry in known} == {entry.path for entry in catalogue.find()}
    assert len(list(captures.iterdir())) == count


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
@pytest.mark.parametrize("kind", [0, *range(1, 14), 65_535])
def test_a_comment_of_any_type_and_damage_is_read_or_left_out(kind, suffix, catalogue, settings):
    """A foreign picture whose UserComment was of type BYTE ended the exporter, again with each start."""
    folder = settings.paths.captures
    folder.mkdir(parents=True, exist_ok=True)
    texts = [b'{"label": "fox"}', b"[" * 100_000, b'{"label": "\xff"}', b"7", b""]
    for number, text in enumerate(texts):
        comment = USER_COMMENT_ASCII + text
        block = tiff.encode_header({}, {Tag.USER_COMMENT: (kind, len(comment), comment)})
        (folder / f"{number}{suffix}").write_bytes(file_around(block, suffix))
        (folder / f"20260101_000000_f{number}{suffix}").write_bytes(file_around(block, suffix))
        (folder / f"cut_20260101_{number}{suffix}").write_bytes(file_around(block, suffix)[:-1])
    assert catalogue.reconcile() == ([], []) and len(list(folder.iterdir())) == 3 * len(texts)
    known = {"label": "fox"} if kind in (1, 2, 6, 7) else {}
    assert sidecar.read_exif(folder / f"0{suffix}") == known
    assert all(sidecar.read_exif(folder / f"{number}{suffix}") == {} for number in range(1, len(texts)))


def file_around(block: bytes, suffix: str) -> bytes:
    if suffix == ".jpg":
        return b"\xff\xd8\xff\xe1" + struct.pack(">H", (len(block) + 8) & 0xFFFF) + tiff.EXIF_MARK + block
    return tiff.PNG_SIGNATURE + encode_chunk(b"eXIf", block) if suffix == ".png" else block


def test_a_rebuild_that_fails_leaves_every_row(catalogue, saved, monkeypatch):
    before = [saved(), saved()]
    wrong = replace(before[0], path=before[0].path.with_name("\udcff.mp4"))
    monkeypatch.setattr(sidecar, "read_all", lambda *_: [before[1], wrong])
    with pytest.raises(UnicodeEncodeError):
        catalogue.rebuild()
    assert catalogue.find(newest_first=False) == before


def test_a_row_added_while_the_library_is_rebuilt_stays(catalogue, saved, settings, monkeypatch):
    saved()
    read = sidecar.read_all

    def reading(paths: set[str], owner: sidecar.Owner) -> list[object]:
        entries = read(paths, owner)
        with Catalogue.of(settings) as another_process:
            another_process.add(on_disk(settings, "meanwhile.npy", kind="picture"))
        return entries

    monkeypatch.setattr(sidecar, "read_all", reading)
    catalogue.rebuild()
    assert {entry.path.name for entry in catalogue.find()} == {"clip0.mp4", "meanwhile.npy"}
    assert catalogue.check() == []


def test_somebodys_manifest_json_is_no_archive_and_deletes_nothing(catalogue, saved, settings):
    """A web page has a file of that name, too. Its folder taken for an archive would be hidden, and deleted whole."""
    captures = settings.paths.captures
    kept = [saved("a.npy", kind="picture"), saved("page/b.npy", kind="picture")]
    for folder in (captures, captures / "page"):
        (folder / "manifest.json").write_text('{"name": "my cameras", "icons": []}')
    assert catalogue.reconcile() == ([], []) and catalogue.check() == [] and catalogue.rebuild() == (2, 0)
    for folder in (captures, captures / "page", settings.path.parent):
        forged = replace(kept[0], kind="archive", path=folder / "manifest.json")
        with pytest.raises(LibraryError, match="not deleted"):
            catalogue.remove(forged)
    (captures / "manifest.json").write_text('{"format": 1, "files": []}')  # ours in form, but the folder is no archive
    with pytest.raises(LibraryError, match="not the manifest of an archive"):
        catalogue.remove(replace(kept[0], kind="archive", path=captures / "manifest.json"))
    assert all(entry.path.exists() for entry in kept)


def test_an_archive_that_is_being_built_is_not_taken_for_single_pictures(catalogue, saved, settings):
    """Its files would be deleted as pictures are, and archived once more inside themselves."""
    for number in range(4):
        saved(f"{number}.npy", kind="picture")

    def killed(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(catalogue, settings.paths.archives, "trial", Span(), progress=killed)
    assert list((settings.paths.archives / "trial").rglob("*.npy"))
    assert catalogue.reconcile() == ([], []) and catalogue.rebuild() == (4, 0)
    build(catalogue, settings.paths.archives, "trial", Span())
    listed = json.loads((settings.paths.archives / "trial/manifest.json").read_text())
    assert len(listed["entries"]) == 4 and verify(settings.paths.archives / "trial") == []


def test_a_manifest_with_damaged_rows_is_told_and_still_an_archive(catalogue, saved, settings):
    saved("a.npy", kind="picture")
    entry = build(catalogue, settings.paths.archives, "trial", Span())
    whole = json.loads(entry.path.read_text())
    strange = [{}, 7, {**whole["files"][0], "file": 5}, {**whole["files"][0], "file": "/etc/passwd"}]
    entry.path.write_text(json.dumps({**whole, "files": whole["files"] + strange, "bytes": "many", "entries": 3}))
    assert verify(entry.path.parent) == ["damaged: 3 rows of the manifest", "missing: /etc/passwd"]
    assert catalogue.check(mend=True) and catalogue.check() == []
    assert [e.kind for e in catalogue.find()] == ["archive", "picture"]
    entry.path.write_text('{"format": 1, "files": "all"}')
    with pytest.raises(ValueError, match="missing, damaged"):
        verify(entry.path.parent)


def test_a_library_that_is_removed_while_it_is_in_use_is_made_anew(catalogue, saved, settings, capsys):
    entries = [saved(), saved()]
    for ending in ("", "-wal", "-shm"):
        Path(f"{settings.paths.library}{ending}").unlink(missing_ok=True)
    new = catalogue.add(on_disk(settings, "new.mp4", number=9))
    assert {entry.path for entry in catalogue.find()} == {new.path, *(entry.path for entry in entries)}
    catalogue.close()
    for ending in ("", "-wal", "-shm"):
        Path(f"{settings.paths.library}{ending}").unlink(missing_ok=True)
    assert library.main(["--config", str(settings.path), "list"]) == 0  # the service is down
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_library_nobody_may_write_is_one_line(catalogue, saved, settings, capsys, monkeypatch):
    saved()
    settings.paths.library.with_name("other.sqlite3").mkdir()
    assert library.main(["--config", str(settings.path), "--set", "paths.library=other.sqlite3", "list"]) == 1
    assert capsys.readouterr().err.startswith("ERROR: ")


def test_a_sidecar_is_no_leftover_while_its_file_is_being_written(settings):
    """On start leftovers are swept while the first picture is being saved already."""
    owner, captures = Owner.of(settings.paths.library), settings.paths.captures
    entry = on_disk(settings, "a.npy", kind="picture", companions=("a.csv", "../b.csv", "c"))
    entry.path.unlink()
    for name in ("a.csv", "b.csv"):
        (captures / name).write_text("x")
    with open_atomic(entry.path) as file:
        file.write(b"half")
        write_sidecar(entry.path, entry.to_description(), owner)
        assert files.remove_leftovers([captures], owner) == []
    assert files.remove_leftovers([captures], owner) == [] and len(list(captures.iterdir())) == 4
    entry.path.unlink()
    (captures / ".a.npy.77.part").write_bytes(b"half")  # what a killed process leaves
    assert len(files.remove_leftovers([captures], owner)) == 3 and [p.name for p in captures.iterdir()] == ["b.csv"]


def test_protecting_a_file_that_is_gone_is_refused(catalogue, saved):
    entry = saved("a.npy", kind="picture")
    entry.path.unlink()
    with pytest.raises(FileNotFoundError):
        catalogue.protect(entry.id)
    assert not catalogue.get(entry.id).protected
