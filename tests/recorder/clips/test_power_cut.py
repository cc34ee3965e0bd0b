"""Power cuts and kills: whatever is torn or lost, every file opens and plays to its last complete fragment."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from recorder.clips import clip_file, recovery
from shmcam.video import fmp4_reader
from shmcam.video.disk_file import DiskFile
from shmcam.video.growing_mp4 import read_summary
from tests.recorder import film
from tests.recorder.rig import numbers, rows, timing_of

FRAGMENT_FRAMES = 16
SECTOR = 512
"""What a disk writes whole or not at all."""


@dataclass
class Journal:
    """Everything done to one file, in order: writes, and the points at which all before was synced."""

    path: Path
    done: list[tuple[int, bytes] | None] = field(default_factory=list)


class JournalFile(DiskFile):
    journals: list[Journal]

    def __init__(self, path):
        super().__init__(path)
        self.journal = Journal(path)
        self.journals.append(self.journal)

    def _write_some(self, descriptor, data, offset):
        self.journal.done.append((offset, bytes(data)))
        return super()._write_some(descriptor, data, offset)

    def _sync_data(self, descriptor):
        super()._sync_data(descriptor)
        self.journal.done.append(None)


@pytest.fixture(scope="module")
def journals(tmp_path_factory):
    """What a whole clip did to the disk, from its first byte to its clean close."""
    kept: list[Journal] = []
    opener = type("Opener", (JournalFile,), {"journals": kept})
    with pytest.MonkeyPatch.context() as patch:
        film.at_once(patch)
        clip = film.clip_file(tmp_path_factory.mktemp("film"), opener)
        for unit in film.units():
            clip.add(unit)
        clip.close()
    return kept


def whole_frames(done):
    """Frames in fragments that were synced, were the power cut at the end of `done`."""
    image = bytearray()
    synced = max((index for index, step in enumerate(done) if step is None), default=-1)
    for step in done[: synced + 1]:
        if step is not None:
            offset, data = step
            image[offset : offset + len(data)] = data
    return bytes(image)


def after_power_cut(done, rng):
    """One possible content of the disk: synced writes are there; each later sector is there or not, by chance."""
    synced = max((index for index, step in enumerate(done) if step is None), default=-1)
    image = bytearray(whole_frames(done))
    for step in done[synced + 1 :]:
        fate = rng.choice(["kept", "dropped", "torn"])
        if step is None or fate == "dropped":
            continue
        offset, data = step
        if len(image) < offset:
            image.extend(bytes(offset - len(image)))  # a hole: the size was written, the data was not
        start = 0
        while start < len(data):
            end = min(len(data), (offset + start) // SECTOR * SECTOR + SECTOR - offset)
            if fate == "kept" or rng.random() < 0.5:
                if len(image) < offset + start:
                    image.extend(bytes(offset + start - len(image)))
                image[offset + start : offset + end] = data[start:end]
            start = end
    return bytes(image)


def counted(path):
    """Frames in complete fragments, or in all of a finished file."""
    found = fmp4_reader.measure_extent(path).frames
    return found or len(numbers(path))


def check_replays(journals, folder, seeds):
    """Returns: how many replays left a file at all."""
    video, csv = sorted(journals, key=lambda journal: journal.path.name.endswith("csv.part"))
    adopted = 0
    for seed in seeds:
        rng = random.Random(seed)
        cut = rng.randrange(1, len(video.done) + 1)
        place = folder / f"s{seed}"
        place.mkdir()
        image = after_power_cut(video.done[:cut], rng)
        durable = place / "durable.mp4"
        durable.write_bytes(whole_frames(video.done[:cut]))
        least = counted(durable) if durable.stat().st_size else 0
        (place / video.path.name).write_bytes(image)
        lines = csv.done[: max(1, round(len(csv.done) * cut / len(video.done)))]
        (place / csv.path.name).write_bytes(after_power_cut(lines, rng))
        closed = recovery.adopt_leftovers(place, "cam0")
        assert not list(place.glob("*.part")), f"seed {seed}: a leftover stays"
        if least:
            assert len(closed) == 1, f"seed {seed}: {least} synced frames are lost"
        for one in closed:
            ids = numbers(one.path)
            assert ids == list(range(1000, 1000 + len(ids))), f"seed {seed}: {ids}"
            assert len(ids) >= least, f"seed {seed}: {len(ids)} of {least} synced frames play"
            adopted += 1
        shutil.rmtree(place)
    return adopted


def test_the_disk_may_drop_and_tear_what_was_not_synced(journals, tmp_path):
    assert check_replays(journals, tmp_path, range(60)) > 40


def unsynced(journal):
    """How many fragments the disk had not been told to keep, before each sync."""
    runs = [0]
    for step in journal.done:
        runs = [*runs, 0] if step is None else [*runs[:-1], runs[-1] + (step[1][4:8] == b"moof")]
    return runs


def test_a_backlog_is_synced_less_often_than_live_video_but_never_more_than_is_looked_into(
    journals, tmp_path, monkeypatch
):
    """A card takes long for a sync, and at ten times the camera's rate there would be twenty a second."""
    backlog, _ = journals
    assert max(unsynced(backlog)) == clip_file.UNSYNCED_FRAGMENTS < fmp4_reader.SUSPECT_FRAGMENTS
    kept: list[Journal] = []
    clip = film.clip_file(tmp_path, type("Opener", (JournalFile,), {"journals": kept}))
    for unit in film.units():
        now_s = unit.meta.captured_ns / 1e9 + 1e6
        monkeypatch.setattr(clip_file, "time", SimpleNamespace(monotonic=lambda now_s=now_s: now_s, time=time.time))
        clip.add(unit)
    assert max(unsynced(kept[0])) == 1, "live, nothing waits"
    clip.close()


@pytest.mark.slow
def test_300_power_cuts(journals, tmp_path):
    assert check_replays(journals, tmp_path, range(1000, 1300)) > 200


def test_without_the_barrier_before_the_head_is_overwritten_a_power_cut_costs_the_file(tmp_path, monkeypatch):
    """The test above can fail: it does as soon as the index is not on disk before the head points to it."""
    kept: list[Journal] = []
    opener = type("Opener", (JournalFile,), {"journals": kept, "sync": lambda self: None})
    clip = film.clip_file(tmp_path, opener)
    for unit in film.units():
        clip.add(unit)
    clip.close()
    video = min(kept, key=lambda journal: journal.path.name.endswith("csv.part"))
    head_only = bytearray()
    for offset, data in [
        *video.done[:-2],
        video.done[-1],
    ]:  # everything but the index, which is written before the head
        head_only[offset : offset + len(data)] = data
    path = tmp_path / "cam0_x.mp4.part"
    path.write_bytes(bytes(head_only))
    assert read_summary(path) is None


@pytest.fixture(scope="module")
def growing(tmp_path_factory):
    """A clip as it lies on disk while it grows."""
    folder = tmp_path_factory.mktemp("growing")
    clip = film.clip_file(folder)
    for unit in film.units():
        clip.add(unit)
    data = clip.paths.growing.read_bytes()
    clip.abandon()
    return data


def ends_inside_moof(path):
    with path.open("rb") as file:
        total = path.stat().st_size
        return any(
            kind == b"moof" and start + size > total for kind, start, size in fmp4_reader.read_boxes(file, 0, total)
        )


def check_tails(growing, folder, seeds):
    fates = {
        "truncated": lambda _rng, _count: b"",
        "zeroed": lambda _rng, count: bytes(count),
        "garbage": lambda rng, count: rng.randbytes(count),
    }
    whole = folder / "whole.mp4"
    for fate, tail in fates.items():
        for seed in seeds:
            rng = random.Random(f"{fate}{seed}")
            cut = rng.randrange(1000, len(growing))
            whole.write_bytes(growing[:cut])
            least = fmp4_reader.measure_extent(whole).frames
            path = folder / "cam0_320x96_30fps_20260101_000000_tail.mp4.part"
            path.write_bytes(growing[:cut] + tail(rng, len(growing) - cut))
            # FFmpeg refuses a file that ends inside a fragment's header (160 bytes) until the recorder has cut it off.
            if least and not ends_inside_moof(path):
                assert len(numbers(path)) >= least, f"{fate} {seed}: a player stops before the last whole fragment"
            closed = recovery.adopt_leftovers(folder, "cam0")
            assert closed or not least, f"{fate} {seed}"
            for one in closed:
                ids = numbers(one.path)
                assert ids[:least] == list(range(1000, 1000 + least)), f"{fate} {seed}"
                # Garbage that only hit the inside of a fragment's last unit cannot be told from video: it stays.
                assert len(ids) - least <= FRAGMENT_FRAMES * (fate == "garbage"), f"{fate} {seed}: {ids[least:]}"
                one.path.unlink()


def test_torn_tails_cost_only_the_torn_fragment(growing, tmp_path):
    check_tails(growing, tmp_path, range(20))


@pytest.mark.slow
def test_450_torn_tails(growing, tmp_path):
    check_tails(growing, tmp_path, range(1000, 1150))


def kill_at_random_moments(made, times):
    camera = made.camera(size=(192, 108), slots=1024, noise=30)  # 34 s: kills come faster than a busy machine starts
    camera.begin_filming()
    rng, losses_s = random.Random(5), []
    for number in range(times):
        process = made.start()
        made.ready(times=number + 1)
        time.sleep(rng.uniform(0.4, 2.0))  # the fault: a kill at any moment
        process.kill()
        process.wait()
        losses_s += check_growing(made)
    print(f"{times} kills, {len(losses_s)} files cut off, worst loss {max(losses_s, default=0):.3f} s")
    last = made.start()
    made.ready(times=times + 1)
    camera.wait_frames(30)
    assert made.stop(last) == 0
    return camera


def check_growing(made):
    """The file that was being written plays, and at most one second of what went into it is missing.

    Each frame's line goes into the CSV before the frame goes into the video, and a kill leaves it there.
    Returns: how much of each growing file was lost, in seconds.
    """
    losses_s = []
    for clip in made.clips("*.mp4.part"):
        csv = clip.with_name(clip.name.replace(".mp4.part", "_frame_timing.csv.part"))
        lines = csv.read_text().splitlines() if csv.exists() else []  # a kill came between the two, before any frame
        taken = [int(line.split(",")[2]) for line in lines[1:-1]]
        said = [int(line.split(",")[0]) for line in lines[1:-1]]
        whole = fmp4_reader.measure_extent(clip).frames
        ids = numbers(clip)[:whole] if whole and not ends_inside_moof(clip) else []
        assert ids == said[: len(ids)] and len(ids) in (0, whole), f"{clip}: {whole} frames: {ids}"
        lost = taken[whole:]
        losses_s.append((lost[-1] - lost[0]) / 1e9 if lost else 0.0)
        assert losses_s[-1] < 1.0, f"{clip}: {len(lost)} frames lost"
    return losses_s


def check_all(made, camera):
    """Every file plays, and as the ring held what the kills tore away, no frame at all is missing."""
    ids, clips = [], made.clips()
    for clip in sorted(clips, key=lambda one: numbers(one)[0]):
        here = numbers(clip)
        assert here == [int(line["frame_number"]) for line in rows(timing_of(clip))]
        ids += here
    assert ids == list(range(ids[0], ids[-1] + 1)), "each frame once, none missing"
    assert not list(made.recordings.rglob("*.part"))


def test_kill_9_at_random_moments(rig):
    made = rig(auto_start=True, on_close="plain")
    check_all(made, kill_at_random_moments(made, 4))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_100_kills(rig):
    made = rig(auto_start=True, on_close="plain")
    check_all(made, kill_at_random_moments(made, 100))
