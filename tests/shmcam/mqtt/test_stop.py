"""The process mqtt ends at once, also while the machine's resolver holds a connection up: nothing ends getaddrinfo."""

import subprocess
import sys

from tests.machine import until, within

PROGRAM = """
import socket, sys, time
from pathlib import Path
ask = socket.getaddrinfo
def wait(host, *more, **named):
    if host != "broker.example":
        return ask(host, *more, **named)
    Path("asked").touch()
    time.sleep(60)
socket.getaddrinfo = wait
from shmcam.mqtt.__main__ import main
sys.argv = ["mqtt"]
sys.exit(main())
"""


def test_a_resolver_that_does_not_answer_keeps_the_process_from_nothing(tmp_path):
    (tmp_path / "config.toml").write_text('[mqtt]\nenable = true\nhost = "broker.example"\n')
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        until((tmp_path / "asked").exists, 20)
        with within(2.0):
            process.terminate()
            assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
