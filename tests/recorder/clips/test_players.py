"""Other people's players on our files: Chromium, ffmpeg, ffprobe; finished clips and one that a crash left behind."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading

import pytest

from recorder.clips import finish
from shmcam.library.disks.disk_space import DiskRoom
from shmcam.runtime.atomic_files import PART, sweep
from shmcam.runtime.stop import Stop
from tests.machine import needs
from tests.recorder import film

FRAMES = 100


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """plain: as closed; front: index moved to the front; torn: as a kill left it."""
    made = {}
    for name in ("plain", "front", "torn"):
        folder = tmp_path_factory.mktemp(name)
        clip = film.clip_file(folder)
        for unit in film.units(FRAMES):
            clip.add(unit)
        if name == "torn":
            made[name] = clip.paths.growing.rename(folder / "torn.mp4")
            continue
        clip.close()
        made[name] = clip.paths.clip
        if name == "front":
            assert finish.move_index_to_front(clip.paths.clip, Stop())
    return made


@needs("ffprobe")
def test_a_plain_clip_has_one_index_and_the_front_one_has_it_in_front(clips):
    for name in ("plain", "front"):
        boxes = subprocess.run(
            ["ffprobe", "-v", "trace", str(clips[name])], capture_output=True, text=True, timeout=60
        ).stderr
        kinds = [line.split("type:'")[1][:4] for line in boxes.splitlines() if "parent:'root'" in line]
        assert kinds.count("moov") == 1 and "moof" not in kinds, kinds
        assert (kinds.index("moov") < kinds.index("mdat")) == (name == "front"), kinds


@needs("ffmpeg", "ffprobe")
@pytest.mark.parametrize("name", ["plain", "front", "torn"])
def test_ffmpeg_plays_every_frame(clips, name):
    command = ["ffmpeg", "-v", "error", "-i", str(clips[name]), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    probe = [
        "ffprobe",
        "-v",
        "error",
        "-count_frames",
        "-show_streams",
        "-show_format",
        "-of",
        "json",
        str(clips[name]),
    ]
    shown = json.loads(subprocess.run(probe, capture_output=True, text=True, timeout=60, check=True).stdout)
    stream = shown["streams"][0]
    assert int(stream["nb_read_frames"]) == (90 if name == "torn" else FRAMES)
    assert (stream["codec_name"], stream["color_range"], stream["color_space"]) == ("h264", "pc", "smpte170m")
    assert json.loads(shown["format"]["tags"]["comment"])["first_frame"] == 1000
    if name != "torn":
        assert abs(float(stream["duration"]) - FRAMES * film.PERIOD_US / 1e6) < 0.001


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium (apt-get install chromium)")
def test_chromium_plays_finished_and_torn_clips(clips, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    for name, path in clips.items():
        shutil.copy(path, tmp_path / f"{name}.mp4")
    (tmp_path / "index.html").write_text("<title>clips</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    play = """async name => {
        const video = document.createElement('video');
        video.muted = true; video.src = name + '.mp4'; video.playbackRate = 4;
        document.body.append(video);
        return await new Promise(resolve => {
            video.onended = () => resolve({end: video.currentTime, width: video.videoWidth, height: video.videoHeight,
                shown: video.getVideoPlaybackQuality().totalVideoFrames});
            video.onerror = () => resolve({error: video.error.code + ' ' + video.error.message, at: video.currentTime});
            video.play().catch(error => resolve({error: String(error)}));
        });
    }"""
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--no-first-run"]
            )
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            for name in clips:
                told = page.evaluate(play, name)
                length_s = (90 if name == "torn" else FRAMES) * film.PERIOD_US / 1e6
                assert "error" not in told, (name, told)
                assert abs(told["end"] - length_s) < 0.2, (name, told)
                assert (told["width"], told["height"]) == (film.WIDTH, film.HEIGHT)
            browser.close()
    finally:
        server.shutdown()


def test_a_copy_that_is_interrupted_or_has_no_room_changes_nothing(tmp_path, monkeypatch):
    clip = film.clip_file(tmp_path)
    for unit in film.units():
        clip.add(unit)
    clip.close()
    before = clip.paths.clip.read_bytes()
    stop = Stop()
    stop.request()
    assert not finish.move_index_to_front(clip.paths.clip, stop)
    assert not finish.has_room_for_copy(
        clip.paths.clip, DiskRoom(free_bytes=1 << 60, total_bytes=1 << 60, reserve_bytes=1 << 60)
    )
    monkeypatch.setattr(finish, "_count_frames", lambda _path: 99)
    with pytest.raises(ValueError, match="99 frames of 100"):
        finish.move_index_to_front(clip.paths.clip, Stop())
    assert clip.paths.clip.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([clip.paths.clip.name, clip.paths.timing.name])


def test_a_copy_in_hand_is_not_swept_as_a_leftover(tmp_path, monkeypatch):
    """The exporter sweeps on its start, whatever the recorder is at."""
    clip, swept, packets = film.clip_file(tmp_path), [], finish._count_frames
    for unit in film.units():
        clip.add(unit)
    clip.close()

    def counted(copy):
        swept.append((len(list(tmp_path.glob(f".*{PART}"))), sweep(tmp_path)))
        return packets(copy)

    monkeypatch.setattr(finish, "_count_frames", counted)
    assert finish.move_index_to_front(clip.paths.clip, Stop()) and swept == [(1, [])]
    assert packets(str(clip.paths.clip)) == 100 and not list(tmp_path.glob(".*"))
