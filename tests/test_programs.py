"""Programs that tests fork: as those of an interpreter of their own, but for the time it takes."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.machine import until
from tests.programs import Program

WRONG = [sys.executable, "-m", "capture", "--config", "/nowhere.toml"]


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "config.toml").write_text("")
    program = Program([sys.executable, "-m", "shmcam.hub", "--config", "config.toml"], cwd=tmp_path)
    until((tmp_path / "run/control.sock").exists, 20, "the hub")
    yield program
    program.kill()
    program.wait()


def test_it_says_and_returns_what_its_own_interpreter_would():
    executed = subprocess.run(WRONG, capture_output=True, text=True)
    forked = Program(WRONG, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert forked.communicate(timeout=60) == (executed.stdout, executed.stderr) and executed.stderr
    assert forked.returncode == forked.poll() == executed.returncode == 78


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_it_runs_in_its_folder_under_its_name_until_a_signal(hub, tmp_path, number, code):
    process = psutil.Process(hub.pid)
    assert process.cwd() == str(tmp_path) and " ".join(process.cmdline()).split()[1:3] == ["-m", "shmcam.hub"]
    assert hub.poll() is None and process.ppid() != os.getpid()
    with pytest.raises(subprocess.TimeoutExpired):
        hub.wait(0.05)
    hub.send_signal(number)
    assert hub.wait(60) == code


@pytest.mark.parametrize(("name", "value"), [("PYTHONWARNINGS", "error"), ("LD_PRELOAD", ""), ("OMP_DYNAMIC", "false")])
def test_what_an_interpreter_or_library_reads_at_its_start_gets_one_of_its_own(name, value):
    program = Program(WRONG, env={**os.environ, name: value}, stderr=subprocess.DEVNULL)
    assert psutil.Process(program.pid).ppid() == os.getpid()
    assert program.wait(60) == 78
