"""The same service elsewhere: another user, no network, little memory, another clock, a read-only root, no CPU left."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.faulty_disk import needs_faulty_disk
from tests.machine import needs
from tests.pipeline import BIN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HOME = Path(__file__).parents[2]
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
NOBODY = 65534
MEMORY_MB = 900
"""What a Pi with 1 GB has for everything; rings in /dev/shm count, too."""
CGROUPS = Path("/sys/fs/cgroup")
READ_ONLY = """
mount --make-rprivate / && mount -t tmpfs -o size=300m tmpfs "$1" && mount -o bind,remount,ro / && place=$1 && shift &&
! touch /cannot-be-written 2>/dev/null && exec env TMPDIR="$place" "$@" --place "$place"
"""


def exercise(*arguments: str, before: tuple[str, ...] = (), python: Path | None = None, **environ: str) -> None:
    """`python`: that of another clone, which is used there."""
    command = [*before, str(python or sys.executable), "-m", "tests.faults.exercise", *arguments]
    own = {**os.environ, **environ}
    folder = python.parents[2] if python else HOME
    done = subprocess.run(command, env=own, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    assert done.returncode == 0 and done.stdout.endswith("all well\n"), done.stdout[-4000:]


def works(*command: str) -> bool:
    """Whether this environment can be had here."""
    return subprocess.run(command, capture_output=True).returncode == 0


BECOME = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")


def make_clone(place: Path) -> Path:
    """Makes a clone that another user owns, with a .venv of its own. Returns: its Python. Skips where there is none.

    The packages are ours, but for shmcam: that is the clone's. setpriv itself goes where root may, what it starts not.
    """
    name = f"python3.{sys.version_info.minor}"
    candidates = [Path(folder) / name for folder in (f"{sys.base_prefix}/bin", "/usr/bin")]
    usable = (path for path in candidates if works(*BECOME, "sh", "-c", 'exec "$0" -c "import venv"', str(path)))
    if (python := next(usable, None)) is None or not works("git", "-C", str(HOME), "rev-parse"):
        pytest.skip("no Python that another user may run, or no git repository")
    clone = place / "clone"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", HOME, clone], check=True)
    subprocess.run([python, "-m", "venv", "--without-pip", clone / ".venv"], check=True)
    packages = clone / f".venv/lib/{name}/site-packages"
    (packages / "clone.pth").write_text(f"{clone}\n{sysconfig.get_path('purelib')}\n")
    for script in ("shmcam", "supervisorctl", "supervisord"):
        text = (BIN / script).read_text()
        (clone / ".venv/bin" / script).write_text(f"#!{clone}/.venv/bin/python\n{text.partition(chr(10))[2]}")
        (clone / ".venv/bin" / script).chmod(0o755)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", place], check=True)
    return clone / ".venv/bin/python"


@needs("setpriv", "git")
def test_as_another_user() -> None:
    if os.getuid():
        pytest.skip("only root may become another user")
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        python = make_clone(Path(place))
        exercise("--place", place, before=BECOME, python=python, HOME=place, PYTHONDONTWRITEBYTECODE="1")


@needs("unshare", "ip")
@pytest.mark.parametrize("loopback", ["up", "down"])
def test_in_a_network_namespace(loopback: str) -> None:
    """`docker run --network none`: without any network all but pictures over HTTP goes on."""
    enter = ("unshare", "-Urn", "sh", "-c", f'ip link set lo {loopback}; exec "$@"', "sh")
    if not works(*enter, "true"):
        pytest.skip("network namespaces are forbidden here")
    exercise(*(["--no-http"] if loopback == "down" else []), before=enter)


@contextmanager
def memory_limit(limit_bytes: int) -> Iterator[Path]:
    """A cgroup of its own, v2. Skips where there is none to be had."""
    if not (CGROUPS / "cgroup.controllers").is_file():
        pytest.skip(f"{CGROUPS} is no cgroup v2")
    group = CGROUPS / f"shmcam-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.max").write_text(str(limit_bytes))
    except OSError as problem:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no memory cgroup of our own here: {problem}")
    try:
        yield group
    finally:
        group.rmdir()


def test_under_a_memory_limit() -> None:
    with memory_limit(MEMORY_MB << 20) as group:
        enter = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
        exercise(before=enter)
        events = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
        assert events["oom_kill"] == "0", events


@needs_faulty_disk
def test_a_clock_that_steps() -> None:
    """A day back and six hours on while it records; a clip ends at the step, and no time within goes wrong.

    By faulty.c: libfaketime that leaves CLOCK_MONOTONIC alone makes time.sleep fail (EINVAL of clock_nanosleep).
    """
    exercise("--step-clock")


def test_a_clock_that_is_wrong_in_every_way() -> None:
    """libfaketime, CLOCK_MONOTONIC and CLOCK_BOOTTIME included: two days from now, a tenth faster."""
    if FAKETIME is None:
        pytest.skip("not installed: libfaketime")
    exercise(LD_PRELOAD=str(FAKETIME), FAKETIME="+2d x1.1")


@needs("unshare")
def test_with_a_read_only_root() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        enter = ("unshare", *([] if os.getuid() == 0 else ["-Ur"]), "-m", "sh", "-c", READ_ONLY, "sh", place)
        if not works("unshare", "-m", "sh", "-c", READ_ONLY, "sh", place, "echo"):
            pytest.skip("the root cannot be made read-only here")
        exercise(before=enter, PYTHONDONTWRITEBYTECODE="1")


@pytest.mark.alone
def test_at_100_percent_cpu() -> None:
    """Eight busy loops: nobody is killed, what is lost is counted, and what was recorded plays."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    try:
        exercise()
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
