"""The n-th call of a process fails, for every n: files are whole or absent, answers are true, all heals with the disk.

Each case runs one command again and again with the fault one call later, until the command gets by without meeting it.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shm_ring.formats import geometry
from shmcam.config.settings import Settings
from shmcam.control.call import call
from shmcam.control.messages import Set
from shmcam.library import Catalogue
from shmcam.runtime.atomic_files import sweep
from tests.exporter.conftest import Feed, Service
from tests.faults.faulty_disk import ERRORS, FaultyDisk, make_disk_after_power_cut, needs_faulty_disk, read_journal
from tests.machine import until
from tests.reading import number_in
from tests.recorder import rig as recorder_rig
from tests.recorder.rig import Rig, rows, timing_of

pytestmark = needs_faulty_disk

CASES = [
    *[("write", error) for error in ("ENOSPC", "EIO", "EDQUOT", "short")],
    *[("open", error) for error in ("ENOSPC", "EROFS", "EDQUOT")],
    *[("sync", error) for error in ("EIO", "ENOSPC")],
    *[("name", error) for error in ("ENOSPC", "EIO", "EROFS", "ENOTSUP")],
    *[("lock", error) for error in ("ENOLCK", "ENOTSUP")],
    *[("size", error) for error in ("ENOSPC", "ENOTSUP")],
]
SEED = int(os.environ.get("SHMCAM_SEED", "1"))  # one for all workers of a run, or each would collect other tests
FEW = random.Random(SEED).sample(CASES, 3)
"""The cases of one run of `make test`, of clips the first; `make faults` has all."""
MOST = 200
"""No command makes so many calls."""


def cases(few: list[tuple[str, str]]) -> pytest.MarkDecorator:
    marks = [pytest.param(*case, marks=() if case in few else pytest.mark.slow, id="-".join(case)) for case in CASES]
    return pytest.mark.parametrize(("calls", "error"), marks)


def media(folder: Path) -> set[Path]:
    """The files that somebody would take for pictures or clips."""
    found = folder.rglob("*") if folder.is_dir() else ()
    return {path for path in found if path.suffix in (".jpg", ".png", ".tiff", ".npy", ".mp4")}


def each(disk: FaultyDisk, calls: str, error: str, pid: int, act: Callable[[int], None], step: int = 1) -> int:
    """`act(n)` with the n-th call failing, until that call does not come. Returns: how many n there were."""
    for n in range(1, MOST, step):
        with disk.failing(calls, ERRORS[error], first=n, last=n, pids=[pid]):
            act(n)
            hit = disk.failed
        if not hit and disk.seen < n:
            return n - 1
    return MOST


# ---- the exporter, and the library that it writes


class Saving:
    """Exporter and hub on one faulty disk."""

    def __init__(self, folder: Path) -> None:
        self.disk = FaultyDisk(folder)
        self.service = Service(folder, environ=self.disk.environ())
        self.service.start("hub")
        self.service.start("exporter")
        self.service.ready()
        self.feed = Feed(self.service.settings, "cam0", geometry("yuv420p", 320, 180), 16)

    @property
    def folder(self) -> Path:
        return self.service.settings.paths.captures

    def close(self) -> None:
        self.disk.heal()
        self.service.stop()
        self.feed.close()
        self.disk.__exit__()


@pytest.fixture(scope="module")
def saving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saving]:
    print(f"seed {SEED} (SHMCAM_SEED)")
    one = Saving(tmp_path_factory.mktemp("disk"))
    yield one
    one.close()


@cases(FEW)
def test_a_picture_is_whole_or_absent_and_the_answer_true(saving: Saving, calls: str, error: str) -> None:
    pid = saving.service.processes["exporter"].pid

    def save(n: int) -> None:
        before = media(saving.folder)
        frame = saving.feed.publish()
        reply = saving.service.call(f"save formats=jpg,npy label={calls}{n}")
        new = media(saving.folder) - before
        if reply.ok:
            assert len(new) == 2, (n, reply, new)
        else:
            assert not new or all(path.name in reply.text for path in new), (n, reply, new)
        for path in new:
            assert number_in(path) == frame, (n, path)

    tried = each(saving.disk, calls, error, pid, save)
    print(f"exporter {calls} {error}: {tried} calls, each failed once")
    assert tried or calls == "size"
    _is_healed(saving)


def _is_healed(saving: Saving) -> None:
    assert saving.service.processes["exporter"].poll() is None, saving.service.logs()[-3000:]
    saving.feed.publish()
    until(lambda: saving.service.call("save").ok, 30, lambda: f"pictures again\n{saving.service.logs()[-3000:]}")
    with Catalogue.of(saving.service.settings) as catalogue:
        until(
            lambda: {entry.path for entry in catalogue.find()} == media(saving.folder),
            40,
            lambda: f"a row for each: {media(saving.folder) ^ {entry.path for entry in catalogue.find()}}",
        )
    sweep(saving.folder)  # as each start does: a second name that could not be removed is left to it
    left = [path.name for path in saving.folder.rglob("*.part")]
    assert not left, left


@cases(FEW)
def test_protecting_is_all_or_nothing(saving: Saving, calls: str, error: str) -> None:
    """The row, its sidecar and the answer agree, whichever call failed."""
    pid = saving.service.processes["exporter"].pid
    saving.feed.publish()
    until(lambda: saving.service.call("save").ok, 30, "a picture")
    catalogue = Catalogue.of(saving.service.settings)
    entry = until(lambda: next(iter(catalogue.find(limit=1)), None), 30, "its row")

    def toggle(n: int) -> None:
        was = catalogue.get(entry.id).protected
        reply = saving.service.call(f"{'unprotect' if was else 'protect'} {entry.id}")
        now = catalogue.get(entry.id).protected
        assert reply.ok == (now != was), (n, reply, was, now)

    each(saving.disk, calls, error, pid, toggle)
    until(lambda: saving.service.call(f"protect {entry.id}").ok, 30, "protection again")
    assert catalogue.get(entry.id).protected
    assert json.loads(entry.path.with_name(entry.path.name + ".json").read_text())["protected"] is True
    assert saving.service.call("library check").ok
    catalogue.close()


# ---- the hub's state: config.toml


def _set(value: float) -> Set:
    return Set(changes={"export.save_before_s": value}, save=True)


@cases(FEW)
def test_settings_are_saved_whole_or_stay_as_they_were(saving: Saving, calls: str, error: str) -> None:
    """`set … save=true`: the file parses and is the old or the new one; "ok" means the new one."""
    pid, config = saving.service.processes["hub"].pid, saving.service.config
    value = [10.0]

    def save(n: int) -> None:
        value[0] += 0.25
        before = config.read_text()
        reply = call(saving.service.settings.socket_path, _set(value[0]), 30)
        text = config.read_text()
        Settings.load(config, environ={})
        is_new = f"save_before_s = {value[0]}" in text
        assert is_new if reply.ok else is_new or text == before, (n, reply, text)

    tried = each(saving.disk, calls, error, pid, save)
    print(f"hub {calls} {error}: {tried} calls, each failed once")
    assert saving.service.processes["hub"].poll() is None
    value[0] += 0.25
    assert call(saving.service.settings.socket_path, _set(value[0]), 30).ok
    assert f"save_before_s = {value[0]}" in config.read_text()
    assert not list(config.parent.glob(f".{config.name}*.part"))


# ---- the recorder


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, recorder_rig.Camera, FaultyDisk, int]]:
    rig = Rig(tmp_path_factory.mktemp("clips"), gop_s=0.2, fragment_s=0.2)
    with FaultyDisk(rig.folder) as disk:
        rig.environ = disk.environ()
        camera = rig.camera(size=(320, 180))
        rig.start_hub()
        process = rig.start()
        camera.publish()
        rig.answers()
        rig.ready()
        yield rig, camera, disk, process.pid
        assert process.poll() is None, rig.log()[-3000:]
    rig.close()


@cases(FEW[:1])
def test_clips_are_whole_whatever_failed_and_recording_goes_on(recording, calls: str, error: str) -> None:
    """Some n of each case: a clip takes about a second, and its n-th call is like its (n + 7)-th."""
    rig, camera, disk, pid = recording
    before = set(rig.clips())

    def record(n: int) -> None:
        rig.ask("record start")
        camera.run(0.7)
        rig.ask("record stop")

    tried = each(disk, calls, error, pid, record, step=7 if calls in ("write", "sync", "name") else 2)
    print(f"recorder {calls} {error}: up to call {tried}, each failed once")
    begun = until(lambda: _starts(rig, camera), 40, lambda: f"recording again\n{rig.log()[-3000:]}")
    stopped = rig.ask("record stop", 40)
    assert begun.ok and stopped.ok, (begun, stopped)
    until(lambda: not rig.clips("*.part"), 60, lambda: f"no leftovers: {rig.clips('*.part')}\n{rig.log()[-3000:]}")
    known = {meta.frame_id for meta in camera.published}
    for clip in set(rig.clips()) - before:
        ids = recorder_rig.numbers(clip)
        assert ids and ids == list(range(ids[0], ids[0] + len(ids))) and set(ids) <= known, (clip, ids)
        if timing_of(clip).exists():
            assert [int(line["frame_number"]) for line in rows(timing_of(clip))] == ids, clip
    with Catalogue.of(Settings.load(rig.folder / "config.toml", environ={})) as library:
        until(
            lambda: {entry.path for entry in library.find()} == set(rig.clips()),
            60,
            lambda: f"rows = files: { {e.path for e in library.find()} ^ set(rig.clips()) }\n{rig.log()[-3000:]}",
        )
        for entry in library.find():
            assert entry.frames == len(recorder_rig.numbers(entry.path)), entry


def _starts(rig: Rig, camera: recorder_rig.Camera):
    reply = rig.ask("record start")
    camera.run(0.5)
    return reply if reply.ok and rig.clips("*.mp4.part") else None


# ---- what is not synced is lost


SAVER = """
import sys
from pathlib import Path
from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry
from shmcam.runtime.atomic_files import open_atomic
settings = Settings.load(Path(sys.argv[1]), environ={})
with Catalogue.of(settings) as library:
    settings.paths.captures.mkdir(exist_ok=True)
    for number in range(12):
        path = settings.paths.captures / f"cam0_{number}_20260101_000000.npy"
        with open_atomic(path) as file:
            file.write(bytes([number]) * 5000)
        row = Entry(kind="picture", camera="cam0", path=path, started_utc_ns=1000 + number, first_frame=number)
        entry = library.add(row)
        library.protect(entry.id, number % 2 == 0)
        print(number, flush=True)
"""


def test_a_power_cut_leaves_whole_pictures_and_their_protection(tmp_path: Path) -> None:
    """Every acknowledged picture is on the disk, bears its description and its protection; the library agrees."""
    old = tmp_path / "old"
    old.mkdir()
    config = old / "config.toml"
    config.write_text("[library]\nfree_reserve_mb = 0\n")
    with FaultyDisk(old, tmp_path / "journal") as disk:
        command = [sys.executable, "-c", SAVER, str(config)]
        done = subprocess.run(command, env=disk.environ(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    changes = read_journal(tmp_path / "journal")
    assert sum(".npy" in change.path for change in changes) > 12 * 6, "the journal missed calls"
    rng = random.Random(SEED)
    for cut in range(40):
        upto = rng.randint(1, len(changes))
        new = tmp_path / f"new{cut}"
        make_disk_after_power_cut(changes[:upto], old, new, rng)
        (new / "config.toml").write_text(config.read_text())
        _check_after_power_cut(changes[:upto], new, upto)


def _check_after_power_cut(done, new: Path, upto: int) -> None:
    settings = Settings.load(new / "config.toml", environ={})
    names = {path.name for path in media(new)}
    for path in media(new):
        number = int(path.name.split("_")[1])
        assert path.read_bytes() == bytes([number]) * 5000, (SEED, upto, path.name, "torn")
    # a description is written after its picture: what has one, synced, was acknowledged
    last_folder_sync: dict[str, int] = {}
    for at, change in enumerate(done):
        if change.kind == 2:
            last_folder_sync[change.path] = at
    renamed = {os.fsdecode(change.more): at for at, change in enumerate(done) if change.kind in (4, 5)}
    for target, at in renamed.items():
        if at < last_folder_sync.get(str(Path(target).parent), -1) and target.endswith(".npy"):
            assert Path(target).name in names, (SEED, upto, target, "acknowledged and lost")
    with Catalogue.of(settings) as library:
        library.reconcile()
        rows = {entry.path.name: entry for entry in library.find()}
    described = {path.name for path in media(new) if path.with_name(path.name + ".json").exists()}
    assert rows.keys() >= described, (SEED, upto, described - rows.keys())
    for name, entry in rows.items():
        sidecar = json.loads((new / "captures" / f"{name}.json").read_text())
        assert entry.protected == bool(sidecar.get("protected", False)), (SEED, upto, name)


def test_the_library_heals_after_each_call_that_fails(tmp_path: Path) -> None:
    """`Catalogue` alone, one process: whichever call fails, the database opens again and has a row for each file."""
    rng, hit = random.Random(SEED), 0
    for number, (calls, error) in enumerate(rng.sample(CASES, 5)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        config = folder / "config.toml"
        config.write_text("[library]\nfree_reserve_mb = 0\n")
        with (
            FaultyDisk(folder) as disk,
            disk.failing(calls, ERRORS[error], first=(at := rng.randint(1, 60)), last=at + 5),
        ):
            subprocess.run(
                [sys.executable, "-c", SAVER, str(config)], env=disk.environ(), capture_output=True, timeout=60
            )
            hit += disk.failed
        with Catalogue.of(Settings.load(config, environ={})) as library:
            library.reconcile()
            described = {path for path in media(folder) if path.with_name(path.name + ".json").exists()}
            assert {entry.path for entry in library.find()} == described, (SEED, calls, error)
            assert not list(folder.glob("*damaged*")), (SEED, calls, error)
        with sqlite3.connect(folder / "library.sqlite3") as database:
            assert database.execute("PRAGMA quick_check").fetchone() == ("ok",), (SEED, calls, error)
    assert hit, SEED
