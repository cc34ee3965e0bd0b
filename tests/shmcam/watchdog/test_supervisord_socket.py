"""A tidy-up that removes *.sock leaves supervisord running: its socket comes back, and no second one is started."""

import re
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shmcam.runtime.supervisord import find_supervisord, is_listening, is_supervisord
from shmcam.watchdog.supervisord_socket import SocketKeeper
from tests.machine import SHORT, until
from tests.pipeline import Pipeline


@pytest.fixture
def listening():
    with tempfile.TemporaryDirectory(dir=SHORT) as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder) / "supervisor.sock"
        server.bind(str(path))
        server.listen()
        yield path, server


def test_a_removed_socket_is_made_again_from_its_second_name(listening):
    path, _ = listening
    keeper = SocketKeeper(path)
    keeper.check()
    for _ in range(2):
        path.unlink()
        keeper.check()
        assert is_listening(path)
    keeper.close()
    assert [file.name for file in path.parent.iterdir()] == ["supervisor.sock"]


def test_a_second_name_that_a_killed_watchdog_left_is_not_taken_for_the_socket(listening):
    path, server = listening
    SocketKeeper(path).check()
    server.close()
    path.unlink()
    keeper = SocketKeeper(path)
    keeper.check()
    assert not path.exists(), "nothing listens there any more"
    with socket.socket(socket.AF_UNIX) as again:
        again.bind(str(path))
        again.listen()
        keeper.check()
        path.unlink()
        keeper.check()
        assert is_listening(path)


def test_a_supervisord_is_found_by_its_file_or_its_pid_file(tmp_path):
    conf = tmp_path / "odd 'ö' conf"
    arguments = ["supervisord", "-c", "input()", conf]
    with subprocess.Popen(arguments, executable=sys.executable, stdin=subprocess.PIPE) as process:
        assert find_supervisord(tmp_path, [tmp_path / "other"]) == 0
        assert until(lambda: find_supervisord(tmp_path, [conf]) == process.pid, 10)
        (tmp_path / "supervisord.pid").write_text(f"{process.pid}\n")
        assert find_supervisord(tmp_path, []) == process.pid
        process.communicate(b"\n")
    assert find_supervisord(tmp_path, [conf]) == 0, "the number of an ended process, or of another program"


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("/home/pi/shmcam/.venv/bin/python -m supervisor.supervisord --nodaemon --configuration CONF", True),
        ("python3 -X utf8 -m supervisor.supervisord -c CONF", True),
        ("/home/pi/shmcam/.venv/bin/python -m shmcam.supervisord --nodaemon --configuration CONF --silent", True),
        ("/usr/bin/python3 /usr/bin/supervisord -n -c CONF", True),
        ("supervisord -c CONF", True),
        ("nano CONF", False),
        ("tail -f CONF", False),
        ("less -m CONF", False),
        ("python -m supervisor.supervisorctl -c CONF", False),
        ("sh -c supervisord\\ -c\\ CONF", False),
        ("", False),
    ],
)
def test_an_editor_of_its_file_is_no_supervisord(line, is_one):
    """`nano run/supervisord.conf` in another terminal kept `shmcam run` from starting."""
    assert is_supervisord(shlex.split(line.replace("CONF", "/home/pi/shmcam/run/supervisord.conf"))) == is_one


def test_the_service_stays_one_while_its_socket_is_gone():
    """`restart` and `run` said "try: shmcam run", and a second supervisord began beside the first."""
    with Pipeline(programs=("hub", "watchdog"), ready=()) as pipeline:
        pipeline.wait_running("watchdog", "hub")
        until(lambda: (pipeline.run / "supervisor.kept").exists(), 20, "the watchdog at work")
        for name in ("supervisor.sock", "control.sock"):
            (pipeline.run / name).unlink()
        assert "hub: started" in pipeline.shmcam("restart", "hub").stdout
        pipeline.supervisorctl("stop", "watchdog:*")
        (pipeline.run / "supervisor.sock").unlink()
        found = pipeline.shmcam("doctor").stdout
        assert re.search(r"already running as pid \d+, but its socket .* is gone\n +type: kill -HUP \d+", found), found
        done = pipeline.shmcam("run")
        assert done.returncode == 75 and "already running as pid" in done.stderr
