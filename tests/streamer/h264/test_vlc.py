"""VLC, with demuxers and decoders of its own, on /stream and /live.mp4: it would show what the ring holds."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machine import until
from tests.reading import number_in
from tests.streamer.h264.test_live import Recorder
from tests.streamer.test_process import Camera, streaming

ENOUGH = 12


@contextmanager
def vlc_on(url: str):
    """VLC without window or sound, writing every fifth picture; as nobody where we are root, which it refuses."""
    who = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="shmcam-vlc-") as name:
        folder = Path(name)
        folder.chmod(0o777)  # tmp_path is ours alone
        scene = ("--video-filter=scene", "--scene-ratio=5", "--scene-prefix=shown", f"--scene-path={folder}")
        player = subprocess.Popen(
            ["cvlc", "--intf=dummy", "--vout=dummy", "--aout=dummy", "--no-audio", *scene, url],
            env={**os.environ, "HOME": name, "XDG_RUNTIME_DIR": name},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **who,
        )
        try:
            yield folder
        finally:
            player.kill()
            player.wait()


@pytest.mark.skipif(shutil.which("cvlc") is None, reason="VLC is not installed")
@pytest.mark.parametrize(("path", "source"), [("/stream", Camera), ("/live.mp4", Recorder)])
def test_vlc_shows_the_frames_of_the_ring(tmp_path, path, source):
    with streaming(tmp_path) as streamer, source(tmp_path, streamer.prefix), vlc_on(streamer.url + path) as folder:
        until(lambda: len(list(folder.glob("shown*.png"))) > ENOUGH, 30, "pictures that VLC shows")
        pictures = sorted(folder.glob("shown*.png"))[:ENOUGH]  # what comes after may be half written
        numbers = [number for picture in pictures if (number := number_in(picture)) is not None]
    # While it fills its buffer VLC shows the first picture again and again, and that may be a 'No signal'.
    assert len(set(numbers)) >= ENOUGH / 2
    assert numbers == sorted(numbers), "no picture out of order"
