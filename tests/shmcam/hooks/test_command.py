"""A command upon an event: argv only, JSON on stdin, fields as environment, a time limit for it and its children."""

import json
import sys
import threading

import psutil

from shmcam.hooks.attempt import Attempt
from shmcam.hooks.command import run_command
from tests.machine import until

OPEN = threading.Event()


def run(argv, payload=b"{}", timeout_s=20.0, closing=OPEN, **environment):
    return run_command(argv, payload, environment, timeout_s, closing)


def test_a_command_gets_json_on_stdin_and_the_facts_in_its_environment(tmp_path):
    out = tmp_path / "out"
    code = f"import os, sys; open({str(out)!r}, 'w').write(os.environ['SHMCAM_HOOK_CAMERA'] + sys.stdin.read())"
    assert run([sys.executable, "-c", code], b'{"event": "saved"}', SHMCAM_HOOK_CAMERA="cam7").state == "done"
    assert out.read_text() == 'cam7{"event": "saved"}'


def test_a_command_that_does_not_read_its_stdin_keeps_nobody_waiting():
    big = json.dumps({"x": "y" * 200_000}).encode()
    assert run(["true"], big) == Attempt("done", "exit code 0")


def test_no_shell_ever_sees_the_words(tmp_path):
    run(["touch", f"{tmp_path}/a; touch {tmp_path}/b"])
    assert not (tmp_path / "b").exists()


def test_a_missing_and_a_failing_command_are_told():
    assert run(["/nowhere/at/all"]).text == "No such file or directory: /nowhere/at/all"
    assert run([sys.executable, "-c", "raise SystemExit(4)"]) == Attempt("failed", "exit code 4")
    assert run(["sh", "-c", "kill -9 $$"]).text == "ended by SIGKILL"
    assert run(["sh", "-c", "kill -40 $$"]).text == "ended by signal 40", "Python has no name for it"
    assert run(["a\0b"]) == Attempt("failed", "embedded null byte")


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_hanging_command_is_killed_with_its_children(tmp_path):
    child = tmp_path / "child"
    assert run(["sh", "-c", f"sleep 60 & echo $! > {child}; wait"], timeout_s=1.0).text == "killed after 1 s"
    pid = int(child.read_text())
    until(lambda: is_gone(pid), 10)


def test_the_end_of_the_process_ends_a_running_command(tmp_path):
    closing, note, results = threading.Event(), tmp_path / "note", []
    script = ["sh", "-c", f"touch {note}; sleep 60"]
    thread = threading.Thread(target=lambda: results.append(run(script, closing=closing)))
    thread.start()
    until(note.exists)
    closing.set()
    thread.join(10)
    assert results == [Attempt("failed", "killed, as hooks stops")]
