"""The process log, driven in real child processes: what reaches the file, and what must never block or grow."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from shmcam.runtime.log_rotation import Quota, RotatingFile


def run(tmp_path: Path, body: str, **tables: object) -> tuple[int, str]:
    """Run `body` inside a open_process_log block of a fresh interpreter. Returns: exit code, text of the log."""
    path = tmp_path / "p.log"
    code = (
        "import logging, os, sys, ctypes\nfrom pathlib import Path\n"
        "from shmcam.runtime.log import hide, open_process_log\nfrom shmcam.config.settings import LoggingSettings\n"
        f"with open_process_log(Path({str(path)!r}), LoggingSettings(**{tables!r})):\n" + textwrap.indent(body, "    ")
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    return done.returncode, path.read_text() if path.exists() else ""


def test_python_and_c_library_output_land_in_the_same_file_without_colours(tmp_path):
    body = (
        "logging.getLogger('a.b').info('hello key=%d', 3)\n"
        "os.write(2, b'\\x1b[31mfrom C\\x1b[0m\\n')\n"
        "print('printed', flush=True)\n"
        "logging.info('saved %s', os.fsdecode(b'caf\\xe9'))\n"
        "print(os.fsdecode(b'caf\\xe9'), flush=True)"
    )
    code, text = run(tmp_path, body)
    assert code == 0
    first, *rest, saved, printed = text.splitlines()
    assert saved.endswith(r" saved caf\xe9") and printed == r"caf\xe9"
    assert first.endswith("INFO    a.b  hello key=3") and first[10] == "T" and "Z " in first
    assert rest == ["from C", "printed"]


def test_an_exception_that_ends_the_process_is_in_the_log_and_exits_1(tmp_path):
    code, text = run(tmp_path, "raise RuntimeError('the reason')")
    assert code == 1
    assert "died of an unexpected error" in text and "RuntimeError: the reason" in text


def test_a_crash_in_c_leaves_a_python_stack(tmp_path):
    code, text = run(tmp_path, "ctypes.string_at(0)")
    assert code == -11
    assert "Segmentation fault" in text


def test_secrets_never_reach_the_file(tmp_path):
    _, text = run(tmp_path, "hide('s3cret')\nlogging.getLogger('x').warning('token=%s', 's3cret')")
    assert "s3cret" not in text and "token=***" in text


def test_secrets_that_a_library_or_a_print_says_are_masked_too(tmp_path):
    _, text = run(tmp_path, "hide('s3cret')\nos.write(2, b'open rtsp://me:s3cret@host\\n')\nprint('s3cret')")
    assert "s3cret" not in text and text.count("***") == 2


def test_a_crash_after_the_log_has_rotated_is_in_the_newest_file(tmp_path):
    body = (
        "import time\nfor n in range(3000):\n    logging.getLogger('flood').info('line %d %s', n, 'x' * 80)\n"
        "time.sleep(1)\nctypes.string_at(0)"
    )
    code, text = run(tmp_path, body, max_bytes=100_000, files=2)
    assert code == -11
    assert "Segmentation fault" in text


def test_a_flood_stays_within_its_quota(tmp_path):
    body = "for n in range(40_000):\n    logging.getLogger('flood').info('line %d %s', n, 'x' * 80)"
    run(tmp_path, body, max_bytes=100_000, files=3)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["p.log", "p.log.1", "p.log.2"]
    assert all(file.stat().st_size <= 100_000 for file in files)


def test_all_logs_together_stay_within_theirs_and_nothing_else_is_touched(tmp_path):
    """Seven processes with three full logs each came to 105 MB."""
    for name in ("dpkg.log", "dpkg.log.1", "syslog.1", "recorder.log"):
        (tmp_path / name).write_bytes(b"x" * 50_000)
    files = {
        name: RotatingFile(
            tmp_path / f"{name}.log", 10_000, 3, quota=Quota(tmp_path, r"(?:a|b|c|recorder)\.log", 200_000, 10_000)
        )
        for name in "abc"
    }
    largest = 0
    for number in range(3000):
        files["abc"[number // 7 % 3]].write(b"y" * 99 + b"\n")
        ours = [path.stat().st_size for path in tmp_path.iterdir() if path.name[0] in "abcr"]
        largest = max(largest, sum(ours))
    assert 100_000 < largest <= 200_000
    assert {path.name for path in tmp_path.iterdir()} >= {"dpkg.log", "dpkg.log.1", "syslog.1", "recorder.log"}
    assert (tmp_path / "c.log").stat().st_size


def test_a_deleted_log_is_created_again(tmp_path):
    file = RotatingFile(tmp_path / "x.log", 1000, 2)
    file.write(b"one\n")
    (tmp_path / "x.log").unlink()
    file.write(b"two\n")
    assert (tmp_path / "x.log").read_bytes() == b"two\n"


def test_lines_a_full_disk_refuses_are_counted_and_told_later(tmp_path, monkeypatch):
    file = RotatingFile(tmp_path / "x.log", 10_000, 2)
    real = os.write
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    file.write(b"lost\nlost\n")
    monkeypatch.setattr(os, "write", real)
    file.write(b"kept\n")
    assert (tmp_path / "x.log").read_text() == "-- 2 lines dropped: disk full or not writable\nkept\n"


def test_a_full_log_that_cannot_be_rotated_is_emptied_rather_than_grown(tmp_path, monkeypatch):
    file = RotatingFile(tmp_path / "x.log", 100, 3)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for _ in range(50):
        file.write(b"x" * 19 + b"\n")
    assert (tmp_path / "x.log").stat().st_size <= 100


def test_printing_faster_than_the_disk_takes_it_loses_lines_but_never_raises(tmp_path):
    body = "for n in range(60_000):\n    print('z' * 200)"
    code, text = run(tmp_path, body)
    assert code == 0 and "Traceback" not in text and "BlockingIOError" not in text


def test_a_blocked_parent_never_blocks_the_process(tmp_path):
    """supervisord stopped: its pipe fills after 64 KiB; the process must not notice (faults.md 0.2)."""
    body = "for n in range(3000):\n    print('y' * 100, flush=True)\nPath(sys.argv[0] or '.').exists()"
    read, write = os.pipe()
    path = tmp_path / "p.log"
    code = (
        "import sys\nfrom pathlib import Path\nfrom shmcam.runtime.log import open_process_log\n"
        "from shmcam.config.settings import LoggingSettings\n"
        f"with open_process_log(Path({str(path)!r}), LoggingSettings()):\n" + textwrap.indent(body, "    ")
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=write, stderr=write)
    deadline = time.monotonic() + 90
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.close(read)
    os.close(write)
    assert child.poll() == 0


def test_logrotate_may_rename_or_copy_and_truncate(tmp_path):
    """After a rename every line went on into hub.log.1, which logrotate compresses and removes."""
    path = tmp_path / "hub.log"
    file = RotatingFile(path, 10_000, 3)
    file.write(b"one\n")
    path.rename(tmp_path / "hub.log.1")
    file.write(b"two\n")
    assert ((tmp_path / "hub.log.1").read_bytes(), path.read_bytes()) == (b"one\n", b"two\n")
    os.truncate(path, 0)  # copytruncate
    file.write(b"three\n")
    assert path.read_bytes() == b"three\n"
    path.rename(tmp_path / "hub.log-20261129")
    path.write_bytes(b"")  # `create`
    file.write(b"four\n")
    assert path.read_bytes() == b"four\n"
    file.close()
