"""`shmcam pipe` into the real programs of docs/bridges.md, each with the words that stand there."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shmcam.imaging import frame_number_code
from tests.machine import needs, until
from tests.pipeline import BIN, Pipeline

SIZE = (640, 480)
PAGE = (Path(__file__).parents[4] / "docs/bridges.md").read_text()


@pytest.fixture(scope="module")
def shmcam():
    camera = {"width": SIZE[0], "height": SIZE[1], "framerate": 15}
    ring = {"downscale": {"enable": True, "width": 320, "height": 240}}
    programs = ("hub", "capture", "recorder", "watchdog")
    with Pipeline(camera=camera, ring=ring, recorder={"gop_s": 1.0}, programs=programs, ready=("capture",)) as pipeline:
        yield pipeline


def environ_of(shmcam):
    path = f"{BIN}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SHMCAM_CONFIG": str(shmcam.config), "SDL_VIDEODRIVER": "dummy"}


def begin(shmcam, *words, **more):
    command = [sys.executable, "-m", "shmcam.cli.main", "pipe", *words]
    return subprocess.Popen(command, env=environ_of(shmcam), cwd=shmcam.folder, stderr=subprocess.PIPE, **more)


def take(shmcam, size_bytes, *words):
    """The first bytes of a pipe, which is then closed. The program must end well."""
    process = begin(shmcam, *words, stdout=subprocess.PIPE)
    data = process.stdout.read(size_bytes)
    process.stdout.close()
    told = process.stderr.read().decode()
    assert process.wait(20) == 0, told
    assert "Traceback" not in told, told
    return data


def recipe(name, **places):
    """The line of docs/bridges.md below `<!-- NAME -->`, with these words replaced."""
    line = re.search(rf"<!-- {name} -->\n+```\w*\n(.*?)\n```", PAGE, re.DOTALL)[1].replace("\\\n", " ")
    for old, new in places.items():
        assert old in line
        line = line.replace(old, new)
    return line


def run_line(shmcam, line, seconds=60):
    """As a person types it, in a shell; the first program that ends ends the pipe."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], env=environ_of(shmcam), cwd=shmcam.folder, capture_output=True,
        text=True, timeout=seconds,
    )  # fmt: skip
    return done, done.stdout + done.stderr


def ffprobe(path):
    command = ["ffprobe", "-v", "error", "-show_streams", "-count_frames", "-of", "json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)["streams"][0]


def test_numbers_rise_whatever_the_format_and_the_ring(shmcam):
    pixels = SIZE[0] * SIZE[1]
    for words, frame_bytes, shape in (
        (("--format", "rawvideo"), pixels * 3 // 2, SIZE[::-1]),
        (("cam0", "--format", "gray", "--from", "lores"), pixels // 4, (240, 320)),
        (("cam0", "--format", "gray", "--size", "320x240", "--fps", "30"), pixels // 4, (240, 320)),
    ):
        data = np.frombuffer(take(shmcam, frame_bytes * 6, *words), np.uint8).reshape(6, frame_bytes)
        numbers = [frame_number_code.read(row[: shape[0] * shape[1]].reshape(shape)) for row in data]
        assert None not in numbers and numbers == sorted(numbers), (words, numbers)


def check_file(shmcam, name, file, codec, frames):
    """Runs a line that makes a file, and counts the frames in that."""
    done, told = run_line(shmcam, recipe(name, **{f"out.{file.suffix[1:]}": str(file)}))
    assert done.returncode == 0, told
    stream = ffprobe(file)
    assert (stream["codec_name"], stream["width"], stream["height"]) == (codec, *SIZE)
    assert int(stream["nb_read_frames"]) >= frames


@needs("ffmpeg", "ffprobe")
def test_ffmpeg_reads_y4m(shmcam):
    check_file(shmcam, "ffmpeg", shmcam.folder / "y4m.mkv", "h264", 30)


@pytest.mark.slow
@needs("ffmpeg", "ffprobe")
def test_ffmpeg_reads_mjpeg(shmcam):
    check_file(shmcam, "ffmpeg-mjpeg", shmcam.folder / "mjpeg.mkv", "mjpeg", 30)


@needs("ffmpeg", "ffprobe")
def test_the_recorder_s_video_becomes_an_mp4_without_encoding(shmcam):
    check_file(shmcam, "mp4", shmcam.folder / "pipe.mp4", "h264", 20)


@pytest.mark.slow
@needs("ffmpeg", "ffprobe")
def test_the_recorder_s_video_as_nal_units(shmcam):
    check_file(shmcam, "h264", shmcam.folder / "pipe.h264", "h264", 30)


@pytest.mark.slow
@needs("ffplay")
def test_ffplay_plays_it(shmcam):
    line = recipe("ffplay", ffplay="timeout -s INT 8 ffplay -v info")
    _, told = run_line(shmcam, line)
    assert "yuv4mpegpipe" in told and "640x480" in told and "Traceback" not in told, told


@needs("gst-launch-1.0")
@pytest.mark.parametrize("name", ["gstreamer", pytest.param("gstreamer-h264", marks=pytest.mark.slow)])
def test_gstreamer_reads_it_by_fdsrc(shmcam, name):
    raw = shmcam.folder / f"{name}.raw"
    places = {"autovideosink": f"filesink location={raw}", "fdsrc fd=0": "fdsrc fd=0 num-buffers=400"}
    _, told = run_line(shmcam, recipe(name, **places))
    assert raw.stat().st_size >= SIZE[0] * SIZE[1] * 3 // 2 and "Traceback" not in told, told


@pytest.mark.slow
@needs("cvlc")
def test_vlc_plays_it(shmcam):
    """VLC refuses to run as root; the user nobody plays what we pipe to it."""
    scene = "--no-audio --vout=dummy --run-time=6 -vv --play-and-exit"
    line = recipe("vlc", vlc=f"timeout -s INT 20 cvlc {scene}")
    if os.geteuid() == 0:
        home = shmcam.folder / "vlc"
        home.mkdir(mode=0o777)
        home.chmod(0o777)
        program = shlex.join(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"HOME={home}"])
        line = line.replace("timeout", f"{program} timeout")
    _, told = run_line(shmcam, line)
    assert re.search(r"(mjpeg|rawvideo|h264|avcodec).*(640x480|codec)", told), told[-3000:]
    assert "Traceback" not in told


def test_a_fifo_serves_one_reader_after_the_other_and_goes_with_the_signal(shmcam):
    path = shmcam.folder / "cam0.y4m"
    process = begin(shmcam, "cam0", "--write-fifo", str(path), stdout=subprocess.DEVNULL)
    try:
        until(path.exists, 20)
        for _ in range(2):
            with path.open("rb") as reader:
                assert reader.readline().startswith(b"YUV4MPEG2 W640 H480 F15:1")
                assert reader.readline() == b"FRAME\n" and len(reader.read(1000)) == 1000
            while b"the end" not in process.stderr.readline():  # what it wrote for the first one is not for the second
                pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stderr.close()
    assert not path.exists()


def test_a_camera_that_is_restarted_goes_on_in_the_same_pipe(shmcam):
    process = begin(shmcam, "cam0", "--format", "gray", stdout=subprocess.PIPE)
    try:
        frame_bytes = SIZE[0] * SIZE[1]
        read = lambda: frame_number_code.read(  # noqa: E731
            np.frombuffer(process.stdout.read(frame_bytes), np.uint8).reshape(SIZE[::-1])
        )
        first = read()
        shmcam.kill("capture")
        numbers = [read() for _ in range(40)]
        assert numbers == sorted(numbers) and numbers[-1] > first + 30
    finally:
        process.terminate()
        process.stdout.close()
        assert process.wait(20) == 0
        process.stderr.close()


def test_a_service_that_does_not_run_is_waited_for_until_the_reader_goes(tmp_path):
    (tmp_path / "config.toml").write_text('[ring]\nprefix = "tnone"\n')
    command = [sys.executable, "-m", "shmcam.cli.main", "pipe", "--config", str(tmp_path / "config.toml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"waiting for frames in /tnone.cam0.main" in process.stderr.readline()
    process.stdout.close()
    assert process.wait(20) == 0, "the reader went"
    process.stderr.close()
