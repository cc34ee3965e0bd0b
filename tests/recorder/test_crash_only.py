"""Crash-only: whatever is killed whenever, what is on disk opens, and the library knows it and nothing else."""

from __future__ import annotations

import json
import random
import time

import av
import pytest

from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from tests.machine import needs, until
from tests.pipeline import Pipeline
from tests.reading import ffprobe, numbers_in_clip
from tests.recorder.rig import rows, timing_of

ROLLING = {
    "auto_start": True,
    "mode": "rolling",
    "recording_duration_minutes": 0.05,
    "rolling_clips_count": 1000,
    "preset": "ultrafast",
}
VICTIMS = ("recorder", "exporter", "capture")


def kill_at_random(shmcam, seconds, rng):
    """Returns: how often each was killed."""
    killed = dict.fromkeys(VICTIMS, 0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(rng.uniform(0.3, 3.0))  # the fault: a kill at any moment
        victim = rng.choice(VICTIMS)
        if shmcam.pid(victim):
            shmcam.kill(victim)
            killed[victim] += 1
    return killed


def growing(shmcam):
    return sorted(path.name for path in shmcam.folder.rglob("*.part"))


@needs("ffprobe")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_after_kills_at_random_every_file_opens_and_the_library_has_a_row_for_each(seconds=20):
    """tests/test_kill.py kills each once on every run."""
    rng = random.Random(11)
    with Pipeline(night={"enable": False}, export={"auto_save_interval_s": 1}, recorder=ROLLING) as shmcam:
        shmcam.wait_running()
        killed = kill_at_random(shmcam, seconds, rng)
        shmcam.wait_running()
        until(lambda: "RECORDING" in shmcam.text("record status"), 60, lambda: shmcam.logs("recorder"))
        assert "recorded" in shmcam.text("record stop", 30)
        until(lambda: not growing(shmcam), 20, lambda: f"leftovers: {growing(shmcam)}")
        clips = sorted((shmcam.folder / "recordings").rglob("*.mp4"))
        assert len(clips) > killed["recorder"] // 3, killed
        print(f"{seconds} s, kills {killed}, {len(clips)} clips")
        taken, spans = [], []
        for clip in clips:
            ids = numbers_in_clip(clip)
            assert ids and None not in ids and len(ids) == int(ffprobe(clip)["streams"][0]["nb_read_frames"]), clip
            with av.open(str(clip)) as video:
                assert json.loads(video.metadata["comment"])["first_frame"] == ids[0]
            times = [int(line["sensor_timestamp_ns"]) for line in rows(timing_of(clip))]
            spans.append((clip.name, ids[0], ids[-1], times[0], times[-1]))
            taken += times
        assert len(taken) == len(set(taken)), ("no frame is in two clips", spans)
        settings = Settings.load(shmcam.config, environ={})
        with Catalogue.of(settings) as library:
            until(lambda: {entry.path for entry in library.find(kinds=["clip"])} == set(clips), 20, "rows = files")
            for entry in library.find():
                assert entry.path.exists() and entry.bytes == entry.path.stat().st_size, entry
