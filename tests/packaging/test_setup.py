"""packaging/setup.sh on a .venv that was made elsewhere, by a Python that is gone, or without pip."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


FAKE = r"""#!/bin/sh
# a Python whose venvs and pip take no time
case "$*" in
"-m venv"*)
    mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo "include-system-site-packages = false" >.venv/pyvenv.cfg
    printf '#!/bin/sh\nexec "%s/.venv/bin/python"\n' "$PWD" >.venv/bin/pip ;;
"-m pip"*) [ ! -e no_room ] || { echo "ERROR: No space left on device"; exit 2; }
    touch "$TMPDIR/wheel" && echo "$*" >>pip.log && echo "$TMPDIR $LC_ALL" >>pip_environ.log
    cp .venv/bin/pip .venv/bin/shmcam && chmod +x .venv/bin/shmcam ;;
--version) echo "Python 3.11.2" ;;
*maxsize*) exit ${BITS_32:-0} ;;
*"import sys, pip"*) [ ! -e no_pip ] ;;
esac
"""

REAL = f"""#!/bin/sh
# a Python whose venv is a real one, and whose pip does nothing
case "$*" in
"-m venv"*) {sys.executable} -m venv --without-pip .venv
    mv .venv/bin/python .venv/bin/real && cp "$0" .venv/bin/python ;;
"-m pip"*) ;;
*) [ ! -e .venv/bin/real ] || exec .venv/bin/real "$@" ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """What setup.sh needs of a clone, in a folder with an odd name."""
    folder = tmp_path / "My Camera #1; 'ö' "
    (folder / "packaging").mkdir(parents=True)
    for name in ("setup.sh", "needs.sh", "lock.txt"):
        shutil.copy(ROOT / "packaging" / name, folder / "packaging")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (tmp_path / "python").write_text(FAKE)
    (tmp_path / "python").chmod(0o755)
    return folder


def setup(clone, *, what="run", command=("sh",), **environ):
    return subprocess.run(
        [*command, "packaging/setup.sh", what], cwd=clone, capture_output=True, text=True, errors="replace",
        timeout=100, check=False,
        env={**os.environ, "PYTHON": str(clone.parent / "python"), **environ},
    )  # fmt: skip


def test_a_venv_is_made_once_and_made_anew_where_it_cannot_be_used(clone):
    """A moved clone ended with `.venv/bin/shmcam: not found`, and so did a system upgrade that took Python away."""
    assert setup(clone).stdout.startswith("installing up to ")
    assert setup(clone).stdout == "" and len((clone / "pip.log").read_text().splitlines()) == 1, "nothing to do"

    moved = clone.rename(clone.with_name("renamed"))
    assert "making .venv anew" in setup(moved).stdout
    assert str(moved / ".venv/bin") in (moved / ".venv/bin/pip").read_text()

    (moved / ".venv/bin/python").unlink()
    (moved / ".venv/bin/python").symlink_to("/usr/bin/python3.9-gone")
    assert "making .venv anew" in setup(moved).stdout

    (moved / "no_pip").touch()
    assert "making .venv anew" in setup(moved).stdout
    (moved / "no_pip").unlink()
    assert setup(moved).stdout == "" and len((moved / "pip.log").read_text().splitlines()) == 4


def test_a_changed_project_is_installed_again_into_the_same_venv(clone):
    setup(clone)
    (clone / ".venv/mark").touch()
    for name, what in (("packaging/lock.txt", "run"), ("pyproject.toml", "test")):
        with (clone / name).open("a") as file:
            file.write("# changed\n")
        assert setup(clone, what=what).returncode == 0
    assert (clone / ".venv/mark").exists()
    assert [line.partition("-c ")[2] for line in (clone / "pip.log").read_text().splitlines()] == [
        "packaging/lock.txt -e .",
        "packaging/lock.txt -e .",
        "packaging/lock.txt -e .[test]",
    ]
    setup(clone)
    assert len((clone / "pip.log").read_text().splitlines()) == 3, "what the tests need has all that runs"


def test_a_folder_that_is_no_venv_is_left_alone(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv/notes.txt").write_text("mine")
    done = setup(clone)
    assert done.returncode == 1 and ".venv is no Python environment; please remove or rename it" in done.stderr
    assert (clone / ".venv/notes.txt").read_text() == "mine"


def test_a_32_bit_system_is_refused_with_the_sentence(clone):
    """pip began to compile OpenCV there, for an hour."""
    done = setup(clone, BITS_32="1")
    assert done.returncode == 1 and "shmcam needs a 64-bit system (aarch64 or x86-64)" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_folder_that_cannot_hold_a_venv_is_refused_by_name(clone):
    done = setup(clone.rename(clone.with_name("a:b")))
    assert done.returncode == 1 and "a folder with a colon in its path" in done.stderr and "a:b" in done.stderr


def test_the_folder_s_name_is_utf_8_whatever_the_locale_says(clone):
    """In "lövelace" and a Latin-1 locale pip wrote another name into its scripts: each `make run` made .venv anew."""
    assert setup(clone, LC_ALL="de_DE.ISO-8859-1").returncode == 0
    assert (clone / "pip_environ.log").read_text().endswith(" C.UTF-8\n")

    (clone.parent / "python").write_text(REAL)
    folder = clone.rename(clone.with_name("lövelace"))
    (folder / "shm_ring").mkdir()
    (folder / "shm_ring/__init__.py").touch()
    assert setup(folder).returncode == 0
    no_utf8 = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([folder / ".venv/bin/real", "-c", "import shm_ring"], cwd="/", env=no_utf8, timeout=60, check=True)

    done = setup(folder.rename(clone.with_name(os.fsdecode(b"l\xf6velace"))), PYTHON=sys.executable, LC_ALL="C")
    assert done.returncode == 1 and "a folder whose path is not UTF-8" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_what_root_made_is_named_with_the_line_to_type(clone):
    for folder in (parent for parent in clone.parents if "pytest-of" in str(parent)):
        folder.chmod(0o755)
    setup(clone)
    (clone / "packaging/lock.txt").write_text("# renewed\n")
    done = setup(clone, command=("setpriv", "--reuid=65534", "--clear-groups", "sh"))
    assert done.returncode == 1 and "belongs to another user; please type: sudo chown -R nobody" in done.stderr, done


def test_what_pip_fetches_is_kept_beside_what_it_installs(clone):
    """Where /tmp is half of a small Pi's memory, pip ended with "No space left on device" and 60 lines of traceback."""
    assert setup(clone, TMPDIR="/nonexistent").returncode == 0
    assert (clone / "pip_environ.log").read_text().startswith(f"{clone}/.venv/tmp ")
    assert not (clone / ".venv/tmp").exists()

    (clone / "packaging/lock.txt").write_text("# renewed\n")
    (clone / "no_room").touch()
    done = setup(clone)
    assert done.returncode == 1 and "ERROR: No space left on device" in done.stderr
    assert "could not be installed: the reason is above. Free here:" in done.stderr
    (clone / "no_room").unlink()
    assert setup(clone).returncode == 0 and not (clone / ".venv/tmp").exists(), "what the failed one left goes"


def test_a_package_that_the_release_does_not_have_keeps_no_other_away(tmp_path):
    """apt-get installs none of several where one is unknown: then most tests would be skipped."""
    programs, log = tmp_path / "bin", tmp_path / "log"
    programs.mkdir()
    (programs / "sh").symlink_to(shutil.which("sh"))
    fakes = {"apt-get": f'echo "$@" >> "{log}"\ncase "$*" in *fusefat*) exit 100; esac', "id": "echo 0"}
    for name, script in fakes.items():
        (programs / name).write_text(f"#!{shutil.which('sh')}\n{script}\n")
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["sh", ROOT / "packaging/needs.sh", "test"], env={"PATH": str(programs), "PYTHON": shutil.which("true")},
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].strip() == "sudo apt-get install fusefat"
    one_by_one = [line.split()[-1] for line in log.read_text().splitlines()[2:]]
    assert {"fusefat", "socat", "ntfs-3g"} <= set(one_by_one) and len(one_by_one) == len(set(one_by_one)) > 25
