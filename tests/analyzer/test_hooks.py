"""The command at day and night: argv only, one at a time, never waited for."""

import sys
import threading
import time

from analyzer.night.day_night_hook import Hooks
from shmcam.runtime.stop import Stop
from tests.machine import until


def test_a_command_runs_with_the_facts_in_its_environment(tmp_path):
    out = tmp_path / "out"
    code = (
        f"import os; open({str(out)!r}, 'w').write(os.environ['SHMCAM_HOOK_CAMERA'] + os.environ['SHMCAM_HOOK_NIGHT'])"
    )
    with Hooks("cam7", Stop()) as hooks:
        hooks.run([sys.executable, "-c", code], "began", "level=3<40", 10.0)
        until(lambda: hooks.state == "ok")
    assert out.read_text() == "cam7began"


def test_no_shell_ever_sees_the_words(tmp_path):
    with Hooks("cam0", Stop()) as hooks:
        hooks.run(["touch", f"{tmp_path}/a; touch {tmp_path}/b"], "began", "", 10.0)
        until(lambda: hooks.state not in ("", "running"))
    assert not (tmp_path / "b").exists()


def test_a_missing_and_a_failing_command_are_told():
    with Hooks("cam0", Stop()) as hooks:
        hooks.run(["/nowhere/at/all"], "began", "", 10.0)
        until(lambda: hooks.state == "failed: No such file or directory")
        hooks.run([sys.executable, "-c", "raise SystemExit(4)"], "ended", "", 10.0)
        until(lambda: hooks.state == "failed: exit code 4")
        hooks.run(["a\0b"], "began", "", 10.0)
        until(lambda: hooks.state == "failed: embedded null byte")


def test_a_hanging_command_is_killed_with_its_children_and_nobody_waits(tmp_path):
    marker = tmp_path / "child"
    script = f"(sleep 3; touch {marker}) & sleep 60"
    with Hooks("cam0", Stop()) as hooks:
        hooks.run(["sh", "-c", script], "began", "", 1.0)
        assert hooks.state in ("", "running")
        until(lambda: hooks.state == "killed after 1 s")
    time.sleep(3.2)
    assert not marker.exists()


def test_of_many_switches_only_the_newest_waits(tmp_path):
    def note(word):
        return [sys.executable, "-c", f"import time; time.sleep(1.0); open({str(tmp_path / word)!r}, 'w')"]

    with Hooks("cam0", Stop()) as hooks:
        for word in ("a", "b", "c", "d"):
            hooks.run(note(word), "began", "", 10.0)
            time.sleep(0.02)
        until(lambda: (tmp_path / "d").exists())
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "c").exists()


def test_nothing_configured_starts_nothing():
    with Hooks("cam0", Stop()) as hooks:
        hooks.run([], "began", "", 10.0)
        assert hooks.state == ""
        assert "hooks" not in [thread.name for thread in threading.enumerate()]


def test_leaving_ends_a_running_command():
    before = time.monotonic()
    with Hooks("cam0", Stop()) as hooks:
        hooks.run(["sleep", "60"], "began", "", 60.0)
        until(lambda: hooks.state == "running")
        time.sleep(0.2)
    assert time.monotonic() - before < 20
    assert hooks._child.poll() is not None
