"""What supervisord does around a fork, when something is wrong at that moment."""

import errno
import os
import signal
import subprocess
import sys
from unittest import mock

import pytest

from shmcam.supervisord.fork_options import ForkOptions
from tests.machine import until

AGAIN = """
[supervisord]
pidfile={folder}/supervisord.pid
logfile={folder}/supervisord.log
[program:again]
command=/bin/sh -c "echo ran >> {folder}/ran; exec sleep 0.1"
startsecs=0
autorestart=true
"""


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOMEM])
def test_after_a_fork_that_failed_signals_come_in_as_before(error):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with mock.patch.object(os, "fork", side_effect=OSError(error, "")), pytest.raises(OSError, match=str(error)):
            ForkOptions.fork(mock.Mock())
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")])
def test_programs_are_started_when_nobody_reads_its_output_any_more(streams, tmp_path):
    conf, ran = tmp_path / "supervisord.conf", tmp_path / "ran"
    conf.write_text(AGAIN.format(folder=tmp_path))
    command = [sys.executable, "-m", "shmcam.supervisord", "--nodaemon", "--configuration", str(conf)]
    errors = subprocess.STDOUT if "stderr" in streams else subprocess.DEVNULL
    supervisord = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    try:
        supervisord.stdout.readline()
        supervisord.stdout.close()  # as `shmcam run --verbose | head -1` does
        until(lambda: ran.exists() and len(ran.read_text().split()) > 5, 20, "starts of the program")
        assert supervisord.poll() is None
    finally:
        supervisord.terminate()
        supervisord.wait(20)
    assert "exit request" in (tmp_path / "supervisord.log").read_text(), "logged on"


INTERRUPTED = """
import os, signal, sys
from shmcam.supervisord import __main__ as program
program.preload = lambda commands: os.kill(os.getpid(), signal.SIGINT)
program.main()
"""


def test_ctrl_c_while_modules_are_loaded_ends_it_without_a_traceback(tmp_path):
    """On a Pi that takes some seconds, and the page's address is shown before."""
    conf = tmp_path / "supervisord.conf"
    conf.write_text(AGAIN.format(folder=tmp_path))
    command = [sys.executable, "-c", INTERRUPTED, "--nodaemon", "--configuration", str(conf)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


@pytest.mark.parametrize(("name", "is_one"), [("PYTHONUNBUFFERED", False), ("PYTHONPATH", True), ("EDITOR", False)])
def test_a_variable_is_a_hindrance_only_if_loading_depends_on_it(name, is_one, monkeypatch):
    """supervisord.conf gives PYTHONUNBUFFERED to the programs, and a user's shell does not give it to supervisord."""
    monkeypatch.delenv(name, raising=False)
    told = ForkOptions()._find_hindrance("shmcam.hub", {**os.environ, name: "1"})
    assert told == (f"its environment has another {name}" if is_one else "")
