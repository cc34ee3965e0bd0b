"""What scripts of the former programs send and read, at the whole, real pipeline with the user's own configuration."""

from __future__ import annotations

import ast
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from datetime import datetime
from pathlib import Path

import av
import pytest

from shmcam import Client, ServiceError
from shmcam.control.call import call
from tests.machine import until
from tests.pipeline import BIN, Pipeline, free_port
from tests.shm_ring.frames import REPOSITORY

SHM_BYTES_MAX = 40_000_000
"""Issue 17: what the user's own configuration may take of shared memory."""


@pytest.fixture(scope="module")
def shmcam():
    """The user's config.json, with the small history ring."""
    trigger_port = free_port()
    with Pipeline(
        network={"trigger_port": trigger_port},
        camera={"width": 1024, "height": 768, "framerate": 10, "codec": "rgb", "video_mode": "stream"},
        ring={"size": 300, "downscale": {"enable": True, "width": 256, "height": 192}},
        export={"save_before_s": 5, "stack_count": 4, "stack_dark_frames": True, "formats": ["jpg", "png"]},
        logging={"level": "info"},
    ) as pipeline:
        pipeline.trigger_port = trigger_port
        until(lambda: "missing" not in pipeline.text("status"), 60, "all connected")
        until(lambda: pipeline.text("save jpg").startswith("Saved"), 60, "frames")
        until(lambda: "oldest" not in pipeline.text("save jpg seconds_ago=6"), 60, "6 s in the ring")
        yield pipeline


def shared_memory_of(prefix):
    return sum(path.stat().st_size for path in Path("/dev/shm").glob(f"{prefix}.*"))


def test_the_users_configuration_fits_into_40_mb_while_it_records_and_is_watched(shmcam):
    assert shmcam.text("record start label=mouse_1").startswith("recording ")
    with urllib.request.urlopen(f"http://127.0.0.1:{shmcam.port}/live.mp4", timeout=30) as video:
        assert video.read(1000)
        until(lambda: Path(f"/dev/shm/{shmcam.prefix}.cam0.h264").exists(), 20, "packets")
        rings = sorted(path.name for path in Path("/dev/shm").glob(f"{shmcam.prefix}.*"))
        assert len(rings) == 4, rings
        assert shared_memory_of(shmcam.prefix) <= SHM_BYTES_MAX, rings
    assert shmcam.text("record stop").startswith("recorded ")
    folder = Path(shmcam.folder / "recordings")
    (session,) = folder.glob("session_*_mouse_1")
    until((session / "session.log").exists, 20, "its log")  # the exporter writes it now and then
    saved = (session / "session.log").read_text()
    assert saved.startswith("# session.log") and "recording began path=" in saved and "cam0" in saved


def test_past_stack_reaches_back_into_the_small_ring_and_says_so(shmcam):
    text = shmcam.text("pastStack jpg")
    first, figures, _ = text.splitlines()
    match = re.fullmatch(
        r"Saved stacked image: (\S+) \| stack of 4 frames \| .*\(export.save_before_s: 5\.000 s\)", first
    )
    assert match and "from the small ring" in figures, text
    ages = [float(age) for age in re.findall(r"\(age: ([\d.]+)s\)", first)]
    assert all(4 < age < 6 for age in ages), text
    near = shmcam.text("save jpg seconds_ago=0.2")
    assert "small ring" not in near and re.search(r"\(timestamp: \d+\.\d{3}, age: \d+\.\d\ds\)", near), near
    assert "small ring" in shmcam.text("save jpg seconds_ago=4")


def test_a_pre_roll_reaches_back_into_the_small_ring_and_says_so(shmcam):
    reply = shmcam.text("record trigger label=pre")
    assert re.search(r"the first [2-6]\.\d+ s are enlarged from the small ring", reply), reply
    shmcam.wait_recorded(55)  # at 10 a second: the pre-roll, and some more
    path = Path(re.search(r"recording (\S+) from frame", reply)[1])
    shmcam.text("set recorder.post_roll_s 0")
    until(path.exists, 60, "the clip is closed")
    with av.open(str(path)) as clip:
        frames = [(frame.width, frame.height, frame.time) for frame in clip.decode(video=0)]
    assert {size[:2] for size in frames} == {(1024, 768)} and frames[-1][2] > 5, frames[-1]


def test_shortstream_sends_the_last_frames_at_once(shmcam):
    before = shmcam.frames()
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(str(shmcam.socket))
        link.sendall(b"shortstream 30\n")
        stream = link.makefile("rb")
        sizes = []
        while (size := struct.unpack(">I", stream.read(4))[0]) != 0:
            assert stream.read(size)[:2] == b"\xff\xd8"
            sizes.append(size)
        line = stream.readline().decode()
    assert len(sizes) == 30 and shmcam.frames() - before < 30, "those that were there, not those that come"
    assert line == "STREAM_DONE: sent=30, skipped=0, available=30, from the small ring\n"
    live = call(shmcam.socket, "shortstream 2 live", on_chunk=lambda data: None)
    assert live.data["sent"] == 2 and live.data["ring"] == "main"


@pytest.mark.parametrize("over", ["socket", "rest"])
def test_the_client_has_the_verbs_of_the_former_facades(shmcam, over):
    client = Client(f"http://127.0.0.1:{shmcam.port}") if over == "rest" else Client(socket_path=shmcam.socket)
    (row,) = client.detect_cameras()
    assert row["camera"] == "cam0" and row["fps"] > 5
    started = client.start_recording(label=over)
    assert started.ok and started.status.startswith("recording_"), started
    assert {client.start_recording(one).status for one in ("cam0", 0)} == {"already_recording"}
    until(lambda: client.status()["cameras"][0]["recording"], 60, "a file")
    assert client.save(formats=["jpg"]).status == "saved"
    shot = client.snapshot([0], label=over)
    assert shot.status == "snapshot_saved", shot
    session, name = Path(shot.data["path"]).parts[-2:]
    assert session.startswith("session_") and session.endswith(over) and name.startswith(f"snapshot_cam0_{over}_")
    assert client.past_stack("cam0", formats=["jpg"], count=2).data["count"] == 2
    assert client.get_live_frame()[:2] == client.get_live_frame(0)[:2] == b"\xff\xd8"
    assert client.get_live_frame("cam9") is client.get_live_frame(9) is None
    assert client.stop_recording().status == "recording_stopped"
    assert client.archive(f"a_{over}", label=over).data["files"] >= 2
    assert client.status()["cameras"] and client.health()["processes"]
    events = client.subscribe("saved")
    thread = threading.Timer(1.5, client.snapshot)
    thread.start()
    told = next(events)
    assert (told["event"], told["data"]["kind"], told["data"]["trigger"]) == ("saved", "picture", "snapshot")
    thread.join()
    refused = client.save("cam9")
    assert not refused.ok and "cam9" in refused.text


def test_the_example_of_the_client_runs_from_another_machine(shmcam, tmp_path):
    command = [sys.executable, str(REPOSITORY / "examples/client.py"), f"http://127.0.0.1:{shmcam.port}", ""]
    command += ["127.0.0.1", str(shmcam.trigger_port)]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environ)
    assert done.returncode == 0 and "5 frames of the stream\n5 frames of shortstream\n" in done.stdout, done
    files = sorted(tmp_path.glob("*.jpg"))
    assert len(files) == 11 and all(file.read_bytes()[-2:] == b"\xff\xd9" for file in files)


def test_the_client_says_what_is_wrong():
    with pytest.raises(ServiceError, match=r"expected http://HOST:PORT"):
        Client("pi:8080")
    with pytest.raises(ServiceError, match="refused"):
        Client("http://127.0.0.1:1").status()
    assert not Client("http://127.0.0.1:1").snapshot().ok
    with pytest.raises(ServiceError, match="no hub at /nowhere"):
        Client(socket_path="/nowhere").health()


MANUAL = """
import subprocess
import json
import time

# Start camera system in slave mode
proc = subprocess.Popen(
    ["shmcam", "run", "--mode", "slave", "--discovery-retry", "3", "--output-dir", "recordings/cameras"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    bufsize=1  # Line buffered
)

# Wait for initialization
time.sleep(2)

# Send start recording command
proc.stdin.write(json.dumps({"command": "start_recording"}) + "\\n")
proc.stdin.flush()

# Read status response
status = json.loads(proc.stdout.readline())
print(f"Recording started: {status}")

# Record for 10 seconds
time.sleep(10)

# Stop recording
proc.stdin.write(json.dumps({"command": "stop_recording"}) + "\\n")
proc.stdin.flush()
status = json.loads(proc.stdout.readline())
print(f"Recording stopped: {status}")

# Get status
proc.stdin.write(json.dumps({"command": "get_status"}) + "\\n")
proc.stdin.flush()
status = json.loads(proc.stdout.readline())
print(f"System status: {status}")

# Cleanup
proc.stdin.write(json.dumps({"command": "quit"}) + "\\n")
proc.stdin.flush()
proc.wait()
"""
"""The example program of the camera module's manual; only the command that it starts is another one."""


def test_the_example_program_of_the_manual_runs_unchanged(tmp_path):
    pipeline = Pipeline()  # its folder and config.toml; the example starts it
    environ = {**os.environ, "SHMCAM_CONFIG": str(pipeline.config), "PATH": f"{BIN}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", MANUAL], capture_output=True, text=True, timeout=120, env=environ, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        expected = {
            "Recording started: ": "recording_started",
            "Recording stopped: ": "recording_stopped",
            "System status: ": "status_report",
        }
        for line, (word, status) in zip(lines, expected.items(), strict=True):
            reply = ast.literal_eval(line.removeprefix(word))
            assert (reply["type"], reply["status"]) == ("status", status), line
            assert datetime.fromisoformat(reply["timestamp"]) and reply["data"]
        (clip,) = (tmp_path / "recordings/cameras").glob("session_*/cam0_640x480_30.0fps_*.mp4")
        assert clip.stat().st_size > 10_000
    finally:
        pipeline.stop()
