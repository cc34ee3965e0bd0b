"""Control of the whole, real pipeline: three dialects, previews, a hub that dies, a master with --start."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from shmcam.imaging.frame_number_code import read
from tests.machine import until
from tests.pipeline import Pipeline
from tests.shmcam.hub.hubs import Reader

SHMCAM = str(Path(sys.executable).with_name("shmcam"))


@pytest.fixture(scope="module")
def shmcam():
    with Pipeline() as pipeline:
        until(lambda: is_well(pipeline), 40, "all connected")
        yield pipeline


def is_well(pipeline):
    """Tell whether a hub answers and knows of everyone."""
    status = pipeline.text("status")
    return "capture" in status and "missing" not in status and "silent" not in status


def test_the_three_dialects_and_the_command_line_drive_the_same_service(shmcam):
    assert shmcam.text("save jpg").startswith("Saved single full-resolution image: ")
    shown = shmcam.json({"command": "start_recording"})
    assert (shown["type"], shown["status"]) == ("status", "recording_started")
    assert "RECORDING" in shmcam.text("record status")
    assert shmcam.json({"command": "stop_recording"})["status"] == "recording_stopped"
    level = shmcam.text("night_level")
    assert level.startswith("LEVEL=")
    for words in ("relevant threshold=", "dark_threshold: < ", "bright_threshold: > ", "STATUS="):
        assert words in level
    done = shmcam.shmcam("--json", "status")
    assert done.returncode == 0
    data = json.loads(done.stdout)["data"]
    assert data["ok"] is True
    assert {row["program"] for row in data["processes"]} >= {"capture", "analyzer", "recorder", "exporter", "streamer"}
    assert max(map(len, shmcam.text("status").splitlines())) <= 120


def test_preview_frames_over_json_are_real_pictures(shmcam):
    import simplejpeg

    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(str(shmcam.socket))
        reader = Reader(link)
        link.sendall(b'{"command": "toggle_preview", "camera_id": 0, "enabled": true, "fps": 30, "width": 320}\n')
        assert reader.object()["status"] == "preview_enabled"
        frames = [reader.object() for _ in range(10)]
        assert {frame["type"] for frame in frames} == {"preview_frame"}
        picture = simplejpeg.decode_jpeg(base64.b64decode(frames[-1]["data"]["frame"]), colorspace="GRAY")
        assert picture.shape[1] <= 640
        ids = [frame["data"]["frame_id"] for frame in frames]
        assert ids == sorted(set(ids))
        link.sendall(b'{"command": "toggle_preview", "camera_id": 0, "enabled": false}\n')
        until(lambda: reader.object().get("status") == "preview_disabled", 20, "previews end")


def test_shortstream_brings_frames_whose_numbers_rise(shmcam, tmp_path):
    import simplejpeg

    done = shmcam.shmcam("shortstream", "5", "--out", str(tmp_path))
    assert "STREAM_DONE: sent=5" in done.stdout
    files = sorted(tmp_path.glob("*.jpg"))
    numbers = [read(simplejpeg.decode_jpeg(path.read_bytes(), colorspace="GRAY")[:, :, 0]) for path in files]
    assert len(numbers) == 5
    assert numbers == sorted(set(numbers))


def test_the_pipeline_does_not_notice_the_death_of_its_hub(shmcam):
    before = {name: shmcam.pid(name) for name in ("capture", "recorder", "streamer", "analyzer", "exporter")}
    for _ in range(10):  # a busy machine may starve the synthetic camera of a frame, which is no matter of the hub's
        said = record_over_the_death_of_the_hub(shmcam)
        assert "lost=0" in said
        if "drops=0" in said:
            break
    assert "drops=0" in said
    assert {name: shmcam.pid(name) for name in before} == before


def record_over_the_death_of_the_hub(shmcam: Pipeline) -> str:
    shmcam.text("record start")
    hub = shmcam.pid("hub")
    until(lambda: "RECORDING" in shmcam.text("record status"), 20, "it records")
    os.kill(hub, signal.SIGKILL)
    assert shmcam.http("/snapshot.jpg")[:2] == b"\xff\xd8", "pictures go on without a hub"
    until(lambda: shmcam.socket.exists() and shmcam.pid("hub") not in {0, hub}, 20, "a new hub")
    until(lambda: is_well(shmcam), 20, "everyone is back")
    status = shmcam.json({"command": "recording_status"})
    assert "RECORDING" in status["data"].get("message", ""), status
    assert shmcam.json({"command": "get_status"})["data"]["cameras"][0]["recording"], "told again to the new hub"
    return shmcam.text("record stop")


def test_a_setting_reaches_its_process_live_and_survives_the_hub(shmcam):
    assert shmcam.text("set night.dark_threshold 35").endswith("from 40.0 to 35.0 (live)")
    until(lambda: "dark_threshold: < 35" in shmcam.text("night_level"), 20, "the analyzer has it")
    os.kill(shmcam.pid("analyzer"), signal.SIGKILL)
    until(lambda: "dark_threshold: < 35" in shmcam.text("night_level"), 40, "a new analyzer is told again")
    shmcam.text("set night.dark_threshold 40")


def test_events_tell_of_a_process_that_dies_and_comes_back(shmcam):
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(str(shmcam.socket))
        link.sendall(b'{"command": "subscribe", "topics": ["process"]}\n')
        reader = Reader(link)
        assert reader.object()["status"] == "subscribed"
        shmcam.wait_running("exporter")  # one that dies within startsecs is said to be in BACKOFF
        os.kill(shmcam.pid("exporter"), signal.SIGKILL)
        assert event(reader, "process_down")["state"] == "EXITED"
    until(lambda: is_well(shmcam), 20, "the exporter is back")


def event(reader, name):
    while True:
        found = reader.object()
        if found["event"] == name and found["data"]["program"] == "exporter":
            return found["data"]


def test_doctor_on_a_running_service(shmcam):
    found = json.loads(shmcam.shmcam("--json", "doctor").stdout)["findings"]
    texts = [row["text"] for row in found]
    assert any("programs run" in text for text in texts)
    assert any(text.startswith("cam0: synthetic") for text in texts)


def test_top_and_dump_ring_know_this_instance(shmcam, tmp_path):
    rings = json.loads(shmcam.shmcam("top", "--once", "--json").stdout)
    main = next(ring for ring in rings if ring["name"] == shmcam.ring_name())
    assert main["fps"] > 0
    lags = [reader["lag"] for reader in main["readers"]]
    assert any(isinstance(lag, int) for lag in lags), "told by heartbeats"
    done = shmcam.shmcam("dump-ring", "cam0", "--last", "2", "--to", str(tmp_path))
    assert "2 frames written" in done.stdout


def test_a_program_that_is_stopped_is_named_with_what_starts_it(shmcam):
    assert "exporter: stopped" in shmcam.shmcam("stop", "exporter").stdout
    done = shmcam.shmcam("processes")
    assert "STOPPED" in done.stdout and done.returncode == 1
    for word in ("processes", "restart"):
        done = shmcam.shmcam(word, "nosuch")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("shmcam: no program 'nosuch'; programs: ") and "recorder" in done.stderr
    line = f"exec {SHMCAM} --config {shmcam.config} processes exporter"
    done = subprocess.run(["sh", "-c", f"{line} >/dev/full"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "shmcam: No space left on device\n")
    done = subprocess.run(["sh", "-c", f"{line} >&-"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, ""), "it does not run"
    said = "ERROR: exporter is not connected, so nobody answers save; try: shmcam start exporter"
    until(lambda: shmcam.text("save") == said, 20, "the hub says what would help")
    until(lambda: "STOPPED" in shmcam.text("status"), 20, "status shows it")


def test_a_master_starts_the_service_and_stops_it_with_quit():
    pipeline = Pipeline(camera={"width": 320, "height": 240})  # only its folder and configuration; the master starts it
    environ = {**os.environ, "SHMCAM_CONFIG": str(pipeline.config)}
    slave = subprocess.Popen(
        [SHMCAM, "slave", "--start"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environ
    )
    try:
        ready = json.loads(slave.stdout.readline())
        assert (ready["status"], ready["data"]["started"]) == ("ready", True)

        def command(word):
            slave.stdin.write(json.dumps({"command": word}) + "\n")
            slave.stdin.flush()
            return json.loads(slave.stdout.readline())

        until(lambda: command("take_snapshot")["type"] == "status", 40, "a picture")
        assert command("quit")["status"] == "bye"
        assert slave.wait(60) == 0
        assert not list(Path("/dev/shm").glob(f"{pipeline.prefix}.*")), "segments are gone"
        assert not (pipeline.run / "supervisor.sock").exists()
    finally:
        slave.kill()
        slave.wait()
        end_service(pipeline)
        pipeline.stop()


def end_service(pipeline):
    """Whatever became of the master: its supervisord, known by its own configuration, and all below it go."""
    conf = str(pipeline.run / "supervisord.conf")
    for service in [one for one in psutil.process_iter(["cmdline"]) if conf in (one.info["cmdline"] or [])]:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [service, *service.children(recursive=True)]
            service.kill()  # the others die with it (PR_SET_PDEATHSIG)
            psutil.wait_procs(family, timeout=20)
