"""The spine, as a stranger uses it: one number drawn by the camera is found again in every product.

Real processes under a real supervisord; socat, curl, ffprobe, OpenCV and PyAV as outside clients.
"""

from __future__ import annotations

import csv
import re
import subprocess
from pathlib import Path

import pytest

from shm_ring import RingReader, attach
from tests.machine import needs, until
from tests.pipeline import Pipeline
from tests.reading import ffprobe, number_in, number_in_jpeg, numbers_in_clip, stream_parts


@pytest.fixture(scope="module")
def shmcam():
    with Pipeline(night={"enable": False}) as pipeline:
        pipeline.wait_running()
        yield pipeline


def test_every_program_runs_and_says_so(shmcam):
    assert set(shmcam.states().values()) == {"RUNNING"}
    table = shmcam.supervisorctl("status")
    assert all(name in table for name in ("hub", "capture", "analyzer", "recorder", "exporter", "streamer", "watchdog"))
    status = shmcam.text("status")
    assert "capture" in status and "streamer" in status


def test_frame_ids_in_the_ring_are_the_numbers_in_the_pixels(shmcam):
    with RingReader.open(shmcam.ring_name()) as ring:
        from shmcam.imaging import frame_number_code

        for sequence in ring.last(8):
            frame = ring.copy(sequence)
            assert frame_number_code.read(frame.luma) == frame.frame_id


def test_a_stranger_attaches_in_three_lines(shmcam):
    seen = []
    with attach("cam0", prefix=shmcam.prefix) as ring:
        for frame in ring.follow():
            seen.append((frame.frame_id, frame.bgr.shape))
            if len(seen) == 5:
                break
    numbers = [number for number, _ in seen]
    assert numbers == sorted(set(numbers)), "the newest each time: a slow loop skips"
    assert {shape for _, shape in seen} == {(480, 640, 3)}


@pytest.mark.parametrize("kind", ["jpg", "png", "npy", "tiff"])
def test_save_by_socat_writes_the_frame_it_names(shmcam, kind):
    reply = shmcam.text(f"save {kind}")
    match = re.fullmatch(r"Saved single full-resolution image: (\S+) \(timestamp: .+, age: [\d.]+ ?s\)", reply)
    assert match, reply
    path = Path(match[1])
    path = path if path.is_absolute() else shmcam.folder / path
    named = re.fullmatch(rf"(?:.*_)?\d{{8}}_\d{{6}}_f(\d+)(?:_\d+)?\.{kind}", path.name)
    assert named, path.name
    assert number_in(path) == int(named[1])


def test_past_stack_reports_what_it_took(shmcam):
    reply = shmcam.text("pastStack before_s=1 count=8", 60)
    assert "ERROR" not in reply, reply
    assert shmcam.text("night_level").startswith("LEVEL=")


def test_the_stream_carries_the_frame_ids_it_shows(shmcam):
    numbers = []
    for headers, jpeg in stream_parts(f"{shmcam.url}/stream"):
        assert headers["content-type"] == "image/jpeg"
        assert float(headers["x-timestamp"]) > 1.6e9 and headers["x-night"] in ("0", "1")
        assert 0 <= float(headers["x-dark-score"]) <= 255
        assert number_in_jpeg(jpeg) == int(headers["x-frame-id"])
        numbers.append(int(headers["x-frame-id"]))
        if len(numbers) == 20:
            break
    assert numbers == sorted(set(numbers))


@needs("curl")
@pytest.mark.parametrize("path", ["/snapshot.jpg", "/?action=snapshot", "/cam/cam0/snapshot.jpg"])
def test_curl_gets_a_snapshot(shmcam, path):
    done = subprocess.run(["curl", "-sf", shmcam.url + path], capture_output=True, timeout=30)
    assert done.returncode == 0
    assert number_in_jpeg(done.stdout) is not None


@needs("ffmpeg")
def test_ffmpeg_reads_the_stream(shmcam):
    command = ["ffmpeg", "-v", "error", "-i", f"{shmcam.url}/stream", "-frames:v", "10", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@needs("ffprobe")
def test_a_recording_holds_every_frame_and_its_csv_agrees(shmcam):
    assert shmcam.text("record start").startswith("recording ")
    first = shmcam.frames()
    until(lambda: shmcam.frames() > first + 90, 30, "three seconds of frames")
    reply = shmcam.text("record stop", 30)
    assert "ERROR" not in reply, reply
    (clip,) = until(lambda: sorted((shmcam.folder / "recordings").glob("session_*/*.mp4")), 20, "a clip")
    assert re.fullmatch(r"cam0_640x480_30\.0fps_\d{8}_\d{6}\.mp4", clip.name)
    assert re.fullmatch(r"session_\d{8}_\d{6}", clip.parent.name)
    numbers = numbers_in_clip(clip)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) and len(numbers) >= 80
    video = next(stream for stream in ffprobe(clip)["streams"] if stream["codec_type"] == "video")
    assert (video["codec_name"], int(video["nb_read_frames"])) == ("h264", len(numbers))
    (table,) = clip.parent.glob("*_frame_timing.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "frame_number", "write_time_unix", "sensor_timestamp_ns", "dropped_since_last", "total_hardware_drops",
    ]  # fmt: skip
    assert [int(row["frame_number"]) for row in rows] == numbers


def test_restarting_the_streamer_costs_the_recorder_nothing(shmcam):
    before = set((shmcam.folder / "recordings").glob("session_*/*.mp4"))
    shmcam.text("record start")
    shmcam.wait_recorded(20)
    assert "started" in shmcam.supervisorctl("restart", "streamer")
    until(lambda: shmcam._fetches("/snapshot.jpg"), 20, "the stream to come back")
    shmcam.text("record stop", 30)
    (clip,) = until(lambda: set((shmcam.folder / "recordings").glob("session_*/*.mp4")) - before, 20, "a clip")
    numbers = numbers_in_clip(clip)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) and len(numbers) > 30


def test_the_state_page_and_health(shmcam):
    assert b"ustreamer" in shmcam.http("/state") or b"result" in shmcam.http("/state")
    assert shmcam.http("/healthz")
    page = shmcam.http("/").decode()
    assert "<html" in page.lower() and "shmcam" in page


def test_json_dialect_and_command_line(shmcam):
    reply = shmcam.json({"command": "get_status"})
    assert reply["type"] == "status" and "timestamp" in reply and isinstance(reply["data"], dict)
    done = shmcam.shmcam("status", "--json")
    assert done.returncode == 0, done.stderr
    assert shmcam.shmcam("sav").returncode != 0


def test_bad_input_gets_a_clear_error_and_nothing_dies(shmcam):
    pids = {name: shmcam.pid(name) for name in shmcam.states()}
    reply = shmcam.text("sav")
    assert reply.startswith("UNKNOWN_COMMAND sav") and "save" in reply
    assert shmcam.text("set camera.widht 3").startswith("ERROR: ")
    assert shmcam.text("set night.dark_threshold purple").startswith("ERROR: ")
    assert "ERROR" in shmcam.text('{"command": ') or "error" in shmcam.text('{"command": ')
    with socket_to(shmcam) as peer:
        peer.sendall(b"\x81" + b"\xdd\xff\xff\xff\xff" * 10)
        peer.settimeout(10)
        while peer.recv(1 << 16):
            pass
    assert {name: shmcam.pid(name) for name in shmcam.states()} == pids
    assert shmcam.text("ping")


def socket_to(shmcam):
    import socket

    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(shmcam.socket))
    return peer
