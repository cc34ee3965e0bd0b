"""Whole camera services on one real video: shmcam, motion, and what people build of ffmpeg, GStreamer and OpenCV.

Each plays the file in real time, records it (H.264 by x264's preset ultrafast; the script as OpenCV's wheel can),
saves a picture a second, and serves MJPEG at 10 pictures a second. Numbers of frames stand in the pixels.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO, cast

import psutil

from bench.peers.streamer_subjects import pss_mb

FPS, VIEW_FPS, CRF, PRESET = 30, 10, 23, "ultrafast"
SIZE = (1280, 720)


@dataclass(frozen=True)
class Peer:
    """One service: how it is started, where its live pictures are, what it records."""

    name: str
    needs: str
    """The command that must be there; empty: always."""
    start: Callable[[Path, Path, int], list[str]]
    """Video, folder, port → command line; it may write files into the folder."""
    clip: str = "clip.mp4"
    """Glob of the recording below the folder."""
    stream: str = ""
    """Path of the MJPEG stream on the port; empty: it serves none."""

    def missing(self) -> str:
        """Returns why it cannot run here; empty: it can."""
        return "" if not self.needs or shutil.which(self.needs) else f"{self.needs} is not installed"


def start_shmcam(video: Path, folder: Path, port: int) -> list[str]:
    """Returns the command of shmcam with the same work."""
    (folder / "config.toml").write_text(
        f'[camera]\nsource = "file"\npath = "{video}"\n[ring]\nprefix = "peers{port}"\n[network]\ntrigger_port = 0\n'
        f"[mjpeg_server]\nport = {port}\nfps = {VIEW_FPS}\n"
        f'[recorder]\nauto_start = true\npreset = "{PRESET}"\ncrf = {CRF}\n'
        "[export]\nformats = ['jpg']\nauto_save_interval_s = 1\n"
    )
    return [sys.executable, "-m", "shmcam.cli.main", "run", "--config", str(folder / "config.toml")]


def start_motion(video: Path, folder: Path, port: int) -> list[str]:
    """Returns the command of motion; its detection runs on each frame, as ours does."""
    options = {
        "netcam_url": f"file://{video}", "netcam_params": "capture_rate=30", "width": SIZE[0], "height": SIZE[1],
        "framerate": FPS, "target_dir": folder, "emulate_motion": "on", "movie_output": "on", "movie_codec": "mp4",
        "movie_quality": 60, "movie_filename": "clip", "picture_output": "off", "snapshot_interval": 1,
        "snapshot_filename": "picture", "stream_port": port, "stream_maxrate": VIEW_FPS, "stream_localhost": "on",
        "stream_motion": "off", "daemon": "off", "log_file": folder / "motion.log", "threshold": 1500,
    }  # fmt: skip
    (folder / "motion.conf").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    return ["motion", "-n", "-c", str(folder / "motion.conf")]


def start_ffmpeg(video: Path, folder: Path, port: int) -> list[str]:
    """Returns one ffmpeg with three outputs; its HTTP server takes a single viewer, who must come before it begins."""
    return [
        "ffmpeg", "-loglevel", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", str(video),
        "-map", "0:v", "-c:v", "libx264", "-preset", PRESET, "-crf", str(CRF), "-f", "mp4",
        "-movflags", "frag_keyframe+empty_moov", str(folder / "clip.mp4"),
        "-map", "0:v", "-vf", "fps=1", "-update", "1", str(folder / "picture.jpg"),
        "-map", "0:v", "-vf", f"fps={VIEW_FPS}", "-q:v", "5", "-f", "mpjpeg", "-listen", "1",
        f"http://127.0.0.1:{port}/",
    ]  # fmt: skip


def start_gstreamer(video: Path, folder: Path, port: int) -> list[str]:
    """Returns a gst-launch with a tee; its TCP server sends multipart without HTTP around it."""
    text = (
        f"filesrc location={video} ! qtdemux ! h264parse ! avdec_h264 ! identity sync=true ! tee name=t "
        f"t. ! queue ! x264enc speed-preset={PRESET} pass=qual quantizer={CRF} ! h264parse ! "
        f"mp4mux fragment-duration=500 ! filesink location={folder}/clip.mp4 "
        f"t. ! queue ! videorate ! video/x-raw,framerate=1/1 ! jpegenc ! multifilesink location={folder}/picture.jpg "
        f"t. ! queue ! videorate ! video/x-raw,framerate={VIEW_FPS}/1 ! jpegenc ! multipartmux ! "
        f"tcpserversink host=127.0.0.1 port={port}"
    )
    return ["gst-launch-1.0", "-q", "-e", *text.split()]


def start_script(video: Path, folder: Path, port: int) -> list[str]:
    """Returns the big script of one process that people write with OpenCV."""
    return [sys.executable, "-m", "bench.peers.opencv_script", str(video), str(folder), str(port)]


RAW = "raw"
"""Instead of a path: the stream comes over TCP without HTTP."""

PEERS = (
    Peer("shmcam", "", start_shmcam, "recordings/*/*.mp4", "/stream"),
    Peer("motion", "motion", start_motion, "clip*.mp4", "/0/stream"),
    Peer("ffmpeg", "ffmpeg", start_ffmpeg, stream="/"),
    Peer("gstreamer", "gst-launch-1.0", start_gstreamer, stream=RAW),
    Peer("opencv script", "", start_script, stream="/stream"),
)


@dataclass
class Load:
    """What a service took between two moments."""

    process: psutil.Process
    cpu_s: float = 0.0
    began_s: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Takes the figures of the begin."""
        self.cpu_s, self.began_s = cpu_of(self.process), time.monotonic()

    def ms_per_frame(self) -> float:
        """Returns CPU since then, in milliseconds a frame of the camera's rate."""
        return (cpu_of(self.process) - self.cpu_s) / ((time.monotonic() - self.began_s) * FPS) * 1000


def cpu_of(process: psutil.Process) -> float:
    """Returns the CPU seconds of a process and all below it."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def pss_mb_of(process: psutil.Process) -> float:
    """Returns the memory of a process and all below it, without rings, in MB."""
    return sum(pss_mb(one.pid) for one in [process, *process.children(recursive=True)])


def view(peer: Peer, port: int, stop: threading.Event) -> None:
    """Reads a stream as fast as it comes; connects again while the service starts."""
    while not stop.wait(0.1):
        with suppress(OSError, HTTPException), open_stream(peer, port) as stream:  # the end of a service cuts a part
            while not stop.is_set() and stream.read(65536):
                pass


def open_stream(peer: Peer, port: int) -> IO[bytes]:
    """Connects to a stream. Raises: OSError."""
    if peer.stream == RAW:
        return socket.create_connection(("127.0.0.1", port), timeout=5).makefile("rb")
    return cast("IO[bytes]", urllib.request.urlopen(f"http://127.0.0.1:{port}{peer.stream}", timeout=5))


def end(process: subprocess.Popen[bytes]) -> float:
    """Ends a service as Ctrl-C does. Returns: seconds until it was gone."""
    began = time.monotonic()
    process.send_signal(2)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
    return time.monotonic() - began
