"""Live H.264 at an RTSP server that is not ours (GStreamer), through everything that may happen to it."""

import contextlib
import os
import secrets
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from shm_ring import LiveRing
from shmcam.config.settings import Settings, SettingsError
from shmcam.rtsp_publish.address import CannotPublish, addresses_of, list_secrets, to_shown
from shmcam.rtsp_publish.publisher import Publisher
from shmcam.rtsp_publish.rtsp_connection import open_stream
from shmcam.rtsp_publish.settings import RtspPublishSettings
from shmcam.runtime.stop import Stop
from shmcam.video.annexb import ParameterSets
from tests.machine import until
from tests.pipeline import Pipeline, free_port

PYTHON = "/usr/bin/python3"
HAVE_GSTREAMER = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; "
    "Gst.init(None); assert Gst.ElementFactory.find('rtph264depay')"
)


def have_gstreamer() -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([PYTHON, "-c", HAVE_GSTREAMER], capture_output=True).returncode == 0
    return False


class Server:
    """The server of server.py, which may be ended and begun again on the same port."""

    def __init__(self, port: int, person: str, *more: str) -> None:
        self.port, self._words = port, (person, *more)
        self.path = Path(f"/tmp/rtsp-{secrets.token_hex(4)}.out")

    def __enter__(self) -> "Server":
        command = [PYTHON, Path(__file__).with_name("server.py"), str(self.port), *self._words]
        with self.path.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        until(lambda: "ready" in self.path.read_text(), 20, "the server")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.path.unlink()

    def frames(self, path: str) -> list[int]:
        """1 for each key frame, 0 for the others."""
        lines = (line.split() for line in self.path.read_text().splitlines() if line.startswith(f"frame {path} "))
        return [int(line[3]) for line in lines if len(line) == 4]


def row(pipeline: Pipeline) -> str:
    return next((line for line in pipeline.text("status").splitlines() if line.startswith("rtsp_publish ")), "")


needs_gstreamer = pytest.mark.skipif(
    not have_gstreamer(), reason="needs apt: python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"
)


@contextlib.contextmanager
def publishing(port: int, secret: str, scheme: str = "rtsp", **cameras):
    url = f"{scheme}://ann:{secret}@127.0.0.1:{port}/{{camera}}"
    tables = {"recorder": {"gop_s": 1.0}, "rtsp_publish": {"enable": True, "url": url}}
    with Pipeline(camera={"framerate": 15}, cameras=cameras or None, **tables) as shmcam:
        until(lambda: "retrying" in row(shmcam) and "Connection refused" in row(shmcam), 40, lambda: row(shmcam))
        pid = shmcam.pid("rtsp_publish")
        yield shmcam
        assert shmcam.pid("rtsp_publish") == pid, "no server has ended the process"


def wait_published(shmcam: Pipeline, server: Server, *paths: str) -> None:
    for path in paths:
        until(lambda path=path: sum(server.frames(path)) >= 2, 60, lambda: row(shmcam) + server.path.read_text())
        assert server.frames(path)[0] == 1, "it begins with a key frame"
    until(lambda: " published " in row(shmcam), 20, lambda: row(shmcam))


@needs_gstreamer
def test_both_cameras_are_published_after_a_wrong_password_too_and_nobody_sees_the_right_one():
    port, secret = free_port(), secrets.token_urlsafe(12)
    with publishing(port, secret, cam0={}, cam1={"width": 320, "height": 240}) as shmcam:
        with Server(port, "ann:wrong"):
            until(lambda: "401" in row(shmcam) or "Unauthorized" in row(shmcam), 40, lambda: row(shmcam))
        with Server(port, f"ann:{secret}") as server:
            wait_published(shmcam, server, "/cam0", "/cam1")
        until(lambda: "retrying" in row(shmcam), 40, lambda: row(shmcam))
        shown = shmcam.text("dump_config") + shmcam.text("status") + shmcam.text("get rtsp_publish.url")
        logs = "".join(path.read_text(errors="replace") for path in (shmcam.folder / "logs").rglob("*.log*"))
        assert secret not in shown + logs
        refused = shmcam.text("set rtsp_publish.url rtsp://evil.example/x")
        assert "rtsp_publish.url can only be changed in" in refused, "no page and no script redirects pictures"


@needs_gstreamer
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["rtsp", "rtsps"])
def test_a_server_that_takes_nothing_any_more_is_given_up_and_gets_pictures_again_later(tmp_path, scheme):
    """The real 10 s, and what the kernels of both sides hold before."""
    port, secret, more = free_port(), secrets.token_urlsafe(12), []
    if scheme == "rtsps":
        words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out both.pem"
        subprocess.run(["openssl", *words.split()], cwd=tmp_path, capture_output=True, check=True)
        with (tmp_path / "both.pem").open("a") as both:
            both.write((tmp_path / "key.pem").read_text())
        more = [str(tmp_path / "both.pem")]
    with publishing(port, secret, scheme) as shmcam, Server(port, f"ann:{secret}", *more) as server:
        wait_published(shmcam, server, "/cam0")
        os.kill(server.process.pid, signal.SIGSTOP)
        until(lambda: "no answer" in row(shmcam), 60, lambda: row(shmcam))
        os.kill(server.process.pid, signal.SIGCONT)
        before = len(server.frames("/cam0"))
        until(lambda: len(server.frames("/cam0")) > before + 20, 60, "frames again")


def test_a_server_that_was_away_is_no_reason_any_more_while_no_frames_come(monkeypatch):
    """It stayed in the status, as retried and refused, although nobody had asked the server again."""
    monkeypatch.setattr("shmcam.rtsp_publish.publisher.FRAMELESS_S", 0.2)
    stop = Stop()
    with LiveRing("/no-such.cam0.h264", stop) as ring:
        publisher = Publisher("cam0", "rtsp://127.0.0.1:9/x", ring, stop)
        publisher._note(state="waiting", reason="rtsp://127.0.0.1:9/x: Connection refused")
        thread = threading.Thread(target=publisher.run)
        thread.start()
        until(lambda: publisher.status.reason == "", 10)
        stop.request()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("url", ["rtsp://h:99999/x", "rtsp://a..b/x", "rtsp://ann:se?cret@h/x", "rtsp://ann:se/c@h/x"])
def test_a_place_that_cannot_be_is_refused_at_the_start_and_ends_no_process(tmp_path, url):
    (tmp_path / "config.toml").write_text(f'[rtsp_publish]\nurl = "{url}"\n')
    with pytest.raises(SettingsError, match="rtsp_publish") as caught:
        Settings.load(tmp_path / "config.toml", environ={})
    assert url not in str(caught.value) and "ann" not in str(caught.value)
    with pytest.raises(OSError) as told, open_stream(url, "cam0", ParameterSets(b"1234", b"5"), Stop()):
        pass
    assert "se" not in str(told.value).split()


def test_addresses():
    own = RtspPublishSettings(enable=True, url="rtsp://a:p%40ss@h:8554/x/{camera}?k=v")
    assert addresses_of(own, ["cam0", "cam1"])["cam1"] == "rtsp://a:p%40ss@h:8554/x/cam1?k=v"
    assert to_shown("rtsp://a:p%40ss@h:8554/x/cam1?k=v") == "rtsp://h:8554/x/cam1"
    assert to_shown("rtsp://ann:se?cret@h/x?k=a@b") == "rtsp://h/x"
    assert set(list_secrets("rtsp://a:p%40ss@h/x")) == {"rtsp://a:p%40ss@h/x", "p%40ss", "p@ss"}
    one = RtspPublishSettings(enable=True, url="rtsp://h/x")
    assert addresses_of(one, ["cam0"]) == {"cam0": "rtsp://h/x"}
    with pytest.raises(CannotPublish, match=r"must have \{camera\} in it, as there are 2 cameras"):
        addresses_of(one, ["cam0", "cam1"])
    with pytest.raises(CannotPublish, match="no camera 'cam7'; cameras: cam0"):
        addresses_of(RtspPublishSettings(enable=True, url="rtsp://h/x", cameras=("cam7",)), ["cam0"])


@pytest.mark.parametrize("text", ["enable = true", 'url = "http://h/x"', 'url = "rtsp://h"', 'url = "rtsp://h/a b"'])
def test_addresses_that_are_none_are_refused_at_the_start(tmp_path, text):
    (tmp_path / "config.toml").write_text(f"[rtsp_publish]\n{text}\n")
    with pytest.raises(SettingsError, match="rtsp_publish"):
        Settings.load(tmp_path / "config.toml", environ={})
