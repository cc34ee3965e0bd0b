"""What can be wrong before the first frame: a clear line, the right exit code or state, and nothing lost."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.machine import until
from tests.mounts import mounts
from tests.pipeline import BIN, Pipeline


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "shmcam"), "run", *arguments], capture_output=True, text=True, timeout=120,
        env={**os.environ, **environ}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[camera]\nwidht = 3", "config.toml:2: [camera] unknown key 'widht'; did you mean width?"),
        ("[camera]\nwidth = 'x'", "config.toml:2: [camera] width = 'x': must be integer 16..8192 (pixels)"),
        ("not toml", "config.toml: "),
    ],
)
def test_a_wrong_config_exits_78_with_the_line(tmp_path, text, message):
    (tmp_path / "config.toml").write_text(text)
    done = run("--config", str(tmp_path / "config.toml"))
    assert done.returncode == 78 and message in done.stderr


def test_a_missing_config_exits_78(tmp_path):
    done = run("--config", str(tmp_path / "none.toml"))
    assert done.returncode == 78 and "none.toml: cannot be read" in done.stderr


def test_a_process_started_by_hand_refuses_a_wrong_config_the_same_way(tmp_path):
    (tmp_path / "config.toml").write_text("[night]\ndark_threshold = 999")
    for role in ("capture", "analyzer", "recorder", "exporter", "streamer", "shmcam.hub"):
        done = subprocess.run(
            [sys.executable, "-m", role, "--config", str(tmp_path / "config.toml")], capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 78, (role, done.stderr)
        assert "config.toml:2: [night] dark_threshold = 999: must be number 1..255" in done.stderr


def test_a_second_instance_of_the_same_run_folder_is_refused_and_the_first_untouched():
    with Pipeline(programs=("hub", "capture"), ready=("capture",)) as first:
        done = run("--config", str(first.config))
        assert done.returncode == 75 and "already running" in done.stderr
        head = first.frames()
        until(lambda: first.frames() > head, 10, "the first to go on")


def test_two_instances_run_side_by_side():
    with (
        Pipeline(programs=("hub", "capture", "streamer"), camera={"width": 320, "height": 240}) as one,
        Pipeline(programs=("hub", "capture", "streamer"), camera={"width": 320, "height": 240}) as two,
    ):
        assert one.http("/snapshot.jpg") and two.http("/snapshot.jpg")
        assert one.prefix != two.prefix and one.segments() and two.segments()


def test_a_taken_port_is_said_and_taken_over_once_free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Pipeline(ready=("capture",)) as pipeline:
            pipeline.supervisorctl("stop", "streamer")
            config = pipeline.config.read_text().replace(str(pipeline.port), str(port))
            pipeline.config.write_text(config)
            pipeline.port = port
            pipeline.supervisorctl("start", "streamer")
            until(lambda: str(port) in pipeline.logs("streamer"), 20, "the port in the log")
            assert "Traceback" not in pipeline.logs("streamer")
            taken.close()
            until(lambda: pipeline._fetches("/snapshot.jpg"), 60, "the port to be taken over")


def test_a_missing_camera_and_a_missing_file_keep_capture_up_and_say_why(tmp_path):
    for camera in ({"source": "v4l2", "device": "/dev/video99"}, {"source": "file", "path": str(tmp_path / "no.mp4")}):
        with Pipeline(ready=(), camera=camera) as pipeline:
            until(lambda: pipeline.socket.exists() and "capture" in pipeline.text("status"), 20, "a status")
            place = camera.get("device", camera.get("path"))
            until(
                lambda place=place: place in pipeline.text("status") + pipeline.logs("capture"),
                20,
                f"{place} to be named",
            )
            pid = pipeline.pid("capture")
            time.sleep(3)  # some tries, each of which could end it
            assert pipeline.pid("capture") == pid, "capture stays up and tries again"
            assert "Traceback" not in pipeline.logs("capture")
            assert pipeline.text("save").startswith(("ERROR", "NO_"))


FULL = """
for folder in /tmp /var/tmp; do
    mount -t tmpfs -o size=64k tmpfs $folder && cd $folder && head -c 64k /dev/zero > full || exit 1
done
exec "$@"
"""


@mounts
def test_with_a_full_root_disk_the_service_starts(monkeypatch):
    """Only the folders of config.toml, of [paths] run and of the rings take a byte."""
    if BIN.is_relative_to("/tmp") or BIN.is_relative_to("/var/tmp"):
        pytest.skip("this clone lies in a folder that the test covers by a full disk")
    monkeypatch.delenv("TMPDIR", raising=False)
    within = ("unshare", "-Urm", "sh", "-c", FULL, "sh")
    camera = {"width": 320, "height": 240}
    paths = {name: f"/tmp/{name}" for name in ("logs", "recordings", "archives")}
    with Pipeline(place="/dev/shm", ready=("capture",), within=within, camera=camera, paths=paths) as pipeline:
        pipeline.wait_running()
        assert Path(f"/proc/{pipeline.pid('capture')}/cwd").readlink() == Path("/var/tmp")


def test_too_small_a_dev_shm_gives_a_smaller_ring_with_the_sizes_and_no_bus_error(tmp_path):
    """In a private mount namespace with a /dev/shm of 20 MB."""
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("this machine forbids unprivileged user namespaces")
    config = tmp_path / "config.toml"
    config.write_text(
        '[camera]\nsource = "synthetic"\nwidth = 1280\nheight = 720\n[ring]\nsize = 64\nprefix = "tiny"\n'
    )
    log = tmp_path / "logs" / "capture.log"
    script = (
        f"mount -t tmpfs -o size=20m tmpfs /dev/shm && {{ {sys.executable} -m capture --config {config} & }} && "
        f"for _ in $(seq 600); do grep -qs 'MB free' {log} && break; sleep 0.1; done; "
        "kill $!; wait $!; echo code=$?"
    )
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, timeout=120)
    said = log.read_text()
    assert re.search(r"64 slots of 1.382 MB need 88.6 MB; /dev/shm has [12]\d\.\d MB free", said), said
    assert re.search(r"size adjusted requested=64 effective=1\d: ", said), said
    assert "code=0" in done.stdout and "Bus error" not in said
