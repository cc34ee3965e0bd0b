"""The whole service under the supervisord that forks: who is forked, who is not, and what a reload does."""

import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.machine import until
from tests.pipeline import ALL, Pipeline

OWN = """
[program:mine]
command={python} -c "import os, time; open('mine.txt', 'w').write(str(sorted(os.environ))); time.sleep(600)"
directory={folder}
stdout_logfile=NONE
redirect_stderr=true
startsecs=0
"""


@pytest.fixture(scope="module")
def service():
    with Pipeline(camera={"width": 320, "height": 240, "framerate": 10}) as service:
        service.wait_running()
        yield service


def arguments(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().replace("\0", " ")


def descriptors_of(pid):
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found[int(path.name)] = str(path.readlink())
    return found


def stack_of(pid):
    """Where the stack lies: another place after each execve."""
    return next(line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.endswith("[stack]"))


def status_of(pid):
    """The fields of /proc/PID/status."""
    return dict(re.split(r":\s*", line, maxsplit=1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def test_each_program_is_found_by_its_command_line_and_its_name(service):
    for program in ALL:
        process = psutil.Process(service.pid(program))
        module = program if program not in ("hub", "watchdog") else f"shmcam.{program}"
        assert arguments(process.pid).endswith(f" -m {module}")
        assert process.name() == program
        assert process.ppid() == service.supervisord_pid


def test_programs_have_only_descriptors_of_their_own(service):
    parent = service.supervisord_pid
    supervisords = set(descriptors_of(parent).values())
    for program in ALL:
        links = descriptors_of(service.pid(program))
        foreign = {link for fd, link in links.items() if fd > 2} & supervisords - {"/dev/null"}
        answers = program == "watchdog"  # it keeps its standard output for supervisord under another number
        assert len(foreign) == answers and not any("supervisor" in link for link in links.values()), program


def test_memory_is_shared_with_the_parent(service):
    """Each interpreter of its own had 20 MB and more."""
    rollup = Path(f"/proc/{service.pid('watchdog')}/smaps_rollup").read_text()
    shared_kb = int(re.search(r"Shared_Dirty: +(\d+)", rollup)[1])
    assert shared_kb > 20_000, rollup


def test_health_counts_what_programs_share_once(service):
    """It was 477 MiB of a service that took 145: each row has the pages of the parent once more."""
    until(lambda: "service_bytes=" in service.text("status"), 20, "the watchdog to add up")
    health = service.json({"command": "health"})
    taken = health["data"]["machine"]["service_bytes"]
    in_rows = sum(row["rss_bytes"] for row in health["data"]["processes"])
    pids = [service.supervisord_pid, *(service.pid(name) for name in ALL)]
    true = sum(psutil.Process(pid).memory_full_info().pss for pid in pids)
    assert 0.7 * true < taken < 1.2 * true < 0.7 * in_rows
    assert service.text("health").startswith(f"RSS={taken / 2**20:.1f}MiB")


def test_a_killed_program_is_back_without_the_pause_of_a_broken_one(service):
    """supervisord waited 1, then 2 s before it started again what was killed within startsecs."""
    for _ in range(2):
        first = service.kill("analyzer")
        until(lambda first=first: service.pid("analyzer") not in (0, first), 20, "another analyzer")
    assert service.states()["analyzer"] == "STARTING"
    service.wait_running("analyzer")


def test_somebody_elses_program_is_executed_without_our_limits(service):
    conf = service.run / "supervisord.conf"
    before = conf.read_text()
    conf.write_text(before + OWN.format(python=sys.executable, folder=service.folder))
    assert "mine: added process group" in service.supervisorctl("update")
    noted = service.folder / "mine.txt"
    until(lambda: noted.exists() and noted.read_text(), 20, "the program to run")
    assert "OPENBLAS_NUM_THREADS" not in noted.read_text() and "SUPERVISOR_ENABLED" in noted.read_text()
    assert stack_of(service.pid("mine")) != stack_of(service.supervisord_pid), "a process image of its own"
    huge_pages = {name: status_of(service.pid(name))["THP_enabled"] for name in ("mine", "recorder")}
    assert huge_pages == {"mine": "1", "recorder": "0"}
    conf.write_text(before)
    assert "mine: removed process group" in service.supervisorctl("update")


def test_restart_of_all_loads_the_code_anew(service):
    parent, before = service.supervisord_pid, {name: service.pid(name) for name in ALL}
    stack, old = stack_of(parent), stack_of(before["hub"])
    assert old == stack, "forked"
    told = service.shmcam("restart")
    assert told.returncode == 0, told
    assert {line.split(": ")[0] for line in told.stdout.splitlines() if line.endswith("started")} == set(ALL)
    assert stack_of(parent) != stack, "executed anew, under the same pid"
    assert stack_of(service.pid("hub")) == stack_of(parent)
    assert all(service.pid(name) not in (0, pid) for name, pid in before.items())
    until(service.frames, 30, "frames again")


def test_a_broken_supervisord_conf_refuses_a_restart_of_all(service):
    conf = service.run / "supervisord.conf"
    before, hub = conf.read_text(), service.pid("hub")
    conf.write_text(before + "\n[program:broken]\n")
    told = service.shmcam("restart")
    conf.write_text(before)
    assert told.returncode == 1 and "broken" in told.stderr + told.stdout
    assert service.pid("hub") == hub, "nothing was stopped"


def test_the_first_camera_is_a_group_too_beside_the_names_that_people_type(service):
    before = {program: service.pid(program) for program in ("capture", "analyzer", "recorder", "exporter")}
    answer = service.supervisorctl("restart", "cam0:*")
    for program in ("capture", "analyzer", "recorder"):
        assert f"cam0:{program}: started" in answer
        assert service.pid(program) != before[program]
    assert service.pid("exporter") == before["exporter"]
    assert "recorder: stopped" in service.supervisorctl("stop", "cam0:recorder")
    assert service.states()["recorder"] == "STOPPED"
    assert "recorder: started" in service.supervisorctl("start", "recorder")
    assert "no such" in service.supervisorctl("stop", "cam7:*")


def test_ctrl_c_says_that_it_stops_and_stops_all_at_once(service):
    service._process.send_signal(signal.SIGINT)
    service._process.wait(20)
    assert (service.folder / "run.out").read_text().endswith("stopping …\n")
    log = (service.folder / "logs/supervisord.log").read_text().rpartition("received SIGINT")[2]
    assert "SIGKILL" not in log and log.count("stopped:") == len(ALL)
