"""What docs/analyzer.md shows, run as it stands there."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shmcam.control.client import ControlClient
from shmcam.runtime.stop import Stop
from tests.machine import until
from tests.pipeline import Pipeline

PAGE = Path(__file__).parents[2] / "docs" / "analyzer.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
SCORES, PLUGIN, PROCESS = BLOCKS


@pytest.fixture(scope="module")
def shmcam():
    world = Pipeline(
        programs=("hub", "capture", "analyzer"),
        ready=("capture",),
        camera={"width": 320, "height": 240},
        analyzer={"plugins": ["mine:score"]},
    )
    (world.folder / "plugins").mkdir()
    (world.folder / "plugins" / "mine.py").write_text(PLUGIN)
    with world:
        yield world


def run(shmcam, code, **more):
    """A user's program, in the folder of config.toml, with this instance's prefix."""
    code = code.replace("/shmcam.cam0", f"/{shmcam.prefix}.cam0")
    code = code.replace('attach("cam0")', f'attach("cam0", prefix="{shmcam.prefix}")')
    path = shmcam.folder / f"example_{abs(hash(code))}.py"
    path.write_text(code)
    environ = {**os.environ, "PYTHONPATH": str(PAGE.parents[1])}
    return subprocess.Popen([sys.executable, str(path)], cwd=shmcam.folder, env=environ, **more)


def test_the_plugin_and_the_reader_of_scores(shmcam):
    def printed():
        child = run(shmcam, SCORES, stdout=subprocess.PIPE, text=True)
        out, _ = child.communicate(timeout=60)
        assert child.returncode == 0
        return "'mine:score': {'bright': " in out and out

    until(printed, 30, lambda: shmcam.logs("analyzer"))


def test_a_process_of_ones_own_is_a_full_citizen(shmcam):
    code = PROCESS.replace("if bright > 0.01", "if bright >= 0")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    stop = Stop()
    heard = []
    with ControlClient("listener", socket_path=shmcam.socket, stop=stop, subscribe=("motion_began",)) as listener:
        child = run(shmcam, code)
        try:

            def arrived():
                heard.extend(one.message for one in listener.receive())
                return any(one.zone == "sky" for one in heard)

            until(arrived, 20, "an event of the user's program")
            until(lambda: "skywatch" in shmcam.text("status"), 10, "the program in status")
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)
