"""A module that runs in a forked child is what `python -m MODULE` is: arguments, streams, signals, end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FORK = """
import os, random, signal, sys
import numpy.random
from shmcam.supervisord.forked_program import run_forked
sys.path.insert(0, "")
signal.signal(signal.SIGTERM, print)  # supervisord's own handlers
signal.signal(signal.SIGHUP, print)
os.environ["GONE"] = "1"
print("not written twice", end="", flush=True)
sys.stdout.write(" nor at all")  # what supervisord could not write
for _ in range(int(sys.argv[1])):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if not pid:
        arguments = [sys.executable, "-m", "mine", "--camera", "cam1"]
        run_forked("mine", arguments, {"NAME": "value", "PATH": os.environ["PATH"]})
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
os.write(1, b"code=%d" % code)
os._exit(0)
"""


@pytest.fixture
def run(tmp_path):
    def run(text, times=1, before="", **options):
        (tmp_path / "mine.py").write_text(text)
        filling = ["-", "x" * 200]  # a command line as long as supervisord's, which the child's is written over
        done = subprocess.run(
            [sys.executable, "-c", f"{before}\n{FORK}", str(times), *filling],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            **options,
        )
        return done.stdout.removeprefix("not written twice"), done.stderr

    return run


def test_it_has_arguments_environment_and_folder_of_its_own(run, tmp_path):
    out, err = run("import os, sys; print(__name__, sys.argv, sorted(os.environ.items()), sys.path[0])")
    path = str(tmp_path / "mine.py")
    environ = [("NAME", "value"), ("PATH", os.environ["PATH"])]
    assert out.splitlines()[0] == f"__main__ {[path, '--camera', 'cam1']} {environ} {tmp_path}", err


def test_a_program_that_was_loaded_before_the_fork_is_not_looked_for_again(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").touch()
    (tmp_path / "mine/__main__.py").write_text("def main():\n    print(__name__, 'began')\n    return 3\n")
    out, err = run("", before="import mine.__main__, runpy; runpy.run_module = None")
    assert (out, err) == ("mine.__main__ began\ncode=3", "")


def test_ps_and_psutil_see_its_command_line(run):
    out, err = run("import psutil; print(psutil.Process().cmdline(), open('/proc/self/cmdline').read().strip(chr(0)))")
    words = [sys.executable, "-m", "mine", "--camera", "cam1"]
    assert out.splitlines()[0] == f"{words} {' '.join(words)}", err


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        ("pass", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit(True)", 1, ""),
        ("raise SystemExit('no camera')", 1, "no camera\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import atexit; atexit.register(print, 'at exit')", 0, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGHUP)", -signal.SIGHUP, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", 1, "KeyboardInterrupt\n"),
    ],
)
def test_it_ends_as_a_program_of_its_own(run, end, code, told):
    out, err = run(f"print('began')\n{end}")
    assert out.splitlines()[-1] == f"code={code}" and out.startswith("began\n")
    assert err.endswith(told) and bool(err) == bool(told)
    assert ("at exit" in out) == ("at exit" in end)


def test_it_waits_for_its_threads(run):
    out, err = run(
        "import threading, time; threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()"
    )
    assert "thread" in out, err


def test_signals_are_not_held_back(run):
    out, err = run(
        "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGHUP) + 0)"
    )
    assert out.splitlines()[0] == "set() 0", err


def test_random_numbers_differ_from_child_to_child(run):
    out, err = run("import random, numpy; print(random.random(), numpy.random.rand())", 2)
    first, second, _ = out.splitlines()
    assert not set(first.split()) & set(second.split()), err


def test_what_supervisord_could_not_write_is_not_written_by_the_child(run):
    out, err = run("import gc; gc.collect()")
    assert (out, err) == ("code=0", "")
