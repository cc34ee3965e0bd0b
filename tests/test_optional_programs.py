"""A program that runs only if its table says so: in and out of supervisord by an edit; one line for what it lacks."""

import os
import signal
import subprocess
import sys

import pytest

from shmcam.cli.run.command import prepare
from shmcam.config.settings import Settings
from shmcam.watchdog.supervisord_program_files import ProgramFiles
from tests.machine import until
from tests.shmcam.watchdog.supervised import SupervisedOptional

FILES = {
    "lamp/__init__.py": "",
    "lamp/settings.py": """
from shmcam.config.optional_program import Need, OptionalProgram
class LampSettings(OptionalProgram, frozen=True):
    bulb: bool = False
    def list_needs(self):
        return (Need.of_extra("bulb", "lamp"),) if self.bulb else ()
TABLES = {"lamp": LampSettings}
""",
    "lamp/__main__.py": """
from shmcam.control.client import ControlClient
from shmcam.runtime.startup import startup
with startup("lamp") as process, ControlClient("lamp", socket_path=process.settings.socket_path) as control:
    while not process.stop.wait(0.2):
        control.beat(shines=1)
""",
    "lamp-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: lamp\nVersion: 1\n",
    "lamp-1.dist-info/entry_points.txt": "[shmcam.settings]\nlamp = lamp.settings\n",
}

DOCTOR = """
import sys
from types import SimpleNamespace
from shmcam.cli.doctor.service import check_optional_programs
from shmcam.config.settings import Settings
settings = Settings.load(sys.argv[1])
print(*check_optional_programs(SimpleNamespace(settings=lambda: settings)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A package of somebody else, seen by every process."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield folder


@pytest.fixture(scope="module")
def service(folder):
    with SupervisedOptional() as service:
        yield service


def test_an_edit_and_supervisorctl_update_bring_a_program_and_take_it_away(service):
    assert "lamp" not in service.supervisorctl("status")
    service.config.write_text("[lamp]\nenable = true")
    until(lambda: "lamp: added process group" in service.supervisorctl("update"), 20, "the lamp to be added")
    until(lambda: service.row("lamp")[1:2] == ["running"], 30, lambda: service.log_of("lamp"))
    until(lambda: service.state("lamp") == "RUNNING", 20, "supervisord to count it as started")
    first = service.pid("lamp")
    os.kill(first, signal.SIGKILL)
    until(lambda: service.pid("lamp") not in (0, first), 20, "another one")
    service.config.write_text("[lamp]\nenable = false")
    until(lambda: "lamp: removed process group" in service.supervisorctl("update"), 20, "the lamp to be removed")
    assert "lamp" not in service.supervisorctl("status")


def test_what_it_lacks_is_one_line_in_status_log_and_doctor_and_nothing_is_tried_again(service, folder):
    service.config.write_text("[lamp]\nenable = true\nbulb = true")
    until(lambda: "lamp: added process group" in service.supervisorctl("update"), 20, "the lamp to be added")
    told = until(lambda: "EXITED" in (row := service.row("lamp")) and " ".join(row), 30, lambda: service.log_of("lamp"))
    line = "bin/pip install 'shmcam[lamp]'"
    assert told.endswith(line) and "needs bulb; type:" in told
    command = [sys.executable, "-c", DOCTOR, str(service.config)]
    assert line in subprocess.run(command, env=service.environ, capture_output=True, text=True, timeout=90).stdout
    assert service.log_of("lamp").count(line) == 1, "not tried again"
    (folder / "bulb.py").write_text("")
    service.supervisorctl("start", "lamp")
    until(lambda: service.row("lamp")[1:2] == ["running"], 30, lambda: service.log_of("lamp"))


def test_a_release_that_knows_more_programs_writes_their_files_at_its_start(tmp_path):
    """An update of a running service restarts the watchdog, and nobody edits config.toml."""
    (tmp_path / "config.toml").write_text('[night]\non_night = ["true"]\n')
    settings = Settings.load(tmp_path / "config.toml", environ={})
    conf = prepare(settings)
    (conf.parent / "programs/hooks.conf").unlink()
    ProgramFiles(settings).refresh()
    assert "-m shmcam.hooks" in (conf.parent / "programs/hooks.conf").read_text()
