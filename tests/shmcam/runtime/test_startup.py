"""Startup and its end, in real child processes: exit codes that supervisord can trust."""

from __future__ import annotations

import subprocess
import sys

CHILD = """
import sys, threading, logging
from shmcam.runtime import startup
with startup("analyzer", argv=["--config", sys.argv[1]]) as process:
    logging.getLogger("x").info("url %s", "rtsp://me:hunter2hunter2@host")
    if sys.argv[2] == "broken":
        threading.Thread(target=process.stop.fail).start()
        process.stop.wait(20)
    sys.exit(0)
"""


def run(tmp_path, how, text=""):
    (tmp_path / "config.toml").write_text(text)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "config.toml"), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, (tmp_path / "logs" / "analyzer.log").read_text()


def test_a_part_that_broke_ends_the_process_with_1_so_that_it_is_started_again(tmp_path):
    code, log = run(tmp_path, "broken")
    assert code == 1 and "because a part of it broke" in log


def test_a_process_that_was_asked_to_stop_ends_with_0(tmp_path):
    assert run(tmp_path, "well")[0] == 0


def test_the_password_of_a_single_camera_is_masked_in_the_log(tmp_path):
    text = '[cameras.cam0]\nurl = "rtsp://me:hunter2hunter2@host"'
    assert "hunter2" not in run(tmp_path, "well", text)[1]
