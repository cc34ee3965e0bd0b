"""kill -9 in the middle of an archive's copying: the same command goes on, and everything is there once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry
from shmcam.library.manifest import BEGUN, JOURNAL
from shmcam.runtime.atomic_files import PART
from tests.exporter.conftest import Service, running
from tests.machine import PATIENCE, need_shared_memory, until
from tests.pipeline import BIN

CLIPS, CLIP_BYTES = 6, 4_000_000


@pytest.fixture
def elsewhere(tmp_path) -> Iterator[Path]:
    """A folder to which nothing can be linked: on another disk than the pictures."""
    need_shared_memory(CLIPS * CLIP_BYTES + 8_000_000)
    folder = Path(tempfile.mkdtemp(prefix="shmcam-archives-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def service(tmp_path, elsewhere) -> Iterator[Service]:
    if tmp_path.stat().st_dev == elsewhere.stat().st_dev:
        pytest.skip("no second disk: everything is in /dev/shm")
    yield from running(tmp_path, f'archives = "{elsewhere}"\n[library]\nfree_reserve_mb = 1\n')


def filmed(settings: Settings) -> None:
    """Clips with all that belongs to them, each of other bytes."""
    settings.paths.recordings.mkdir()
    with Catalogue.of(settings) as catalogue:
        for number in range(CLIPS):
            path = settings.paths.recordings / f"clip{number}.mp4"
            path.write_bytes(os.urandom(CLIP_BYTES))
            path.with_suffix(".csv").write_text(f"{number}\n")
            more = {"camera": "cam0", "started_utc_ns": number, "companions": (f"clip{number}.csv",)}
            catalogue.add(Entry(kind="clip", path=path, **more))


def archiving(service: Service, *words: str) -> subprocess.Popen[str]:
    command = [str(BIN / "shmcam"), "archive", *words]
    environ = {**os.environ, "SHMCAM_CONFIG": str(service.config)}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stands_still(pid: int) -> bool:
    """Whether SIGSTOP has reached every thread of a process."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def killed(service: Service, folder: Path, brought: Callable[[], int], halves: Callable[[], bool]) -> None:
    """Build the archive, watch the exporter in slow motion, kill it in the middle of a file after a whole one."""
    before, pid = brought(), service.processes["exporter"].pid
    asking = archiving(service, "trial")

    def caught() -> bool:
        nonlocal asking, before
        time.sleep(0.001)  # so long it runs between two looks
        os.kill(pid, signal.SIGSTOP)
        until(lambda: stands_still(pid), 10, "the exporter to stand still")
        if brought() > before and halves():
            return True
        os.kill(pid, signal.SIGCONT)
        if (folder / "manifest.json").exists():  # it was faster than we
            out, err = asking.communicate(timeout=PATIENCE * 60)
            assert asking.returncode == 0, (out, err)
            assert service.call("archives delete trial").ok
            before, asking = 0, archiving(service, "trial")
        return False

    until(lambda: any(caught() for _ in range(100)), 30, lambda: f"the moment: {service.logs()[-1500:]}")
    service.kill("exporter")
    assert brought() > before and halves(), "killed in the middle of a file"
    out, err = asking.communicate(timeout=PATIENCE * 60)
    assert asking.returncode != 0, (out, err)
    service.start("exporter")
    service.ready()


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_an_archive_whose_exporter_was_killed_goes_on_where_it_was(kills, service, elsewhere):
    filmed(service.settings)
    folder = elsewhere / "trial"
    inside = folder / "recordings"

    def brought() -> int:
        return (folder / JOURNAL).read_text().count("sha256") if (folder / JOURNAL).exists() else 0

    def halves() -> bool:
        return any(0 < path.stat().st_size < CLIP_BYTES for path in inside.glob(f".*{PART}"))

    for _ in range(kills):
        killed(service, folder, brought, halves)
    done = {path: path.stat().st_ino for path in inside.glob("clip*")}
    assert 1 <= len(done) < 3 * CLIPS and not (folder / "manifest.json").exists()
    assert service.call("archives list").text.startswith("trial: unfinished; `archive trial` goes on")
    refused = archiving(service, "verify", "trial")
    assert "missing, damaged" in refused.communicate(timeout=PATIENCE * 60)[1] and refused.returncode == 1

    again = archiving(service, "trial")
    out, err = again.communicate(timeout=PATIENCE * 60)
    assert again.returncode == 0 and f"files: {3 * CLIPS}" in out, (out, err)
    verified = archiving(service, "verify", "trial")
    assert verified.communicate(timeout=PATIENCE * 60) == ("trial: ok\n", "") and verified.returncode == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    listed = [item["file"] for item in manifest["files"]]
    names = [f"clip{number}.{ending}" for number in range(CLIPS) for ending in ("csv", "mp4", "mp4.json")]
    assert listed == sorted(f"recordings/{name}" for name in names), "each once"
    assert not any(item["linked"] for item in manifest["files"])
    assert sorted(path.name for path in folder.iterdir()) == ["config.toml", "manifest.json", "recordings"]
    assert sorted(path.name for path in inside.iterdir()) == names
    for name in names:
        assert (inside / name).read_bytes() == (service.settings.paths.recordings / name).read_bytes()
    kept = [path for path, inode in done.items() if path.stat().st_ino == inode]
    assert len(kept) >= len(done) - 1, "what was whole was not copied again"
    assert [row["label"] for row in service.call("archives list").data["rows"]] == ["trial"]
    assert service.call("library check").ok

    (elsewhere / "given_up" / "recordings").mkdir(parents=True)
    shutil.copy(inside / "clip0.mp4", elsewhere / "given_up" / "recordings")
    (elsewhere / "given_up" / JOURNAL).write_text(json.dumps({BEGUN: "recordings/clip0.mp4"}) + "\n")
    assert service.call("archives list").data["unfinished"] == ["given_up"]
    assert service.call("archives delete given_up").text == "OK: deleted unfinished archive given_up"
    assert list(elsewhere.iterdir()) == [folder] and service.call("archives list").data["unfinished"] == []
