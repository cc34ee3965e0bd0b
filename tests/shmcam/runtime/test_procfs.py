"""What is read from /proc."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from shmcam.runtime import procfs
from shmcam.runtime.procfs import boot_id, find_holders, find_lock_holders, name_holders, read_memory


@contextmanager
def another_process(device, code):
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl, sys; f = open(sys.argv[1], 'w'); {code}; print(flush=True); input()",
            device,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        try:
            assert other.stdout.readline() == b"\n"
            yield other.pid
        finally:
            other.kill()


@pytest.fixture
def device(tmp_path):
    """A regular file stands in for the device node: /proc looks the same."""
    (tmp_path / "video0").touch()
    return str(tmp_path / "video0")


def test_who_has_a_device_open_is_found_by_any_of_its_names(device, tmp_path):
    link = tmp_path / "by-id"
    link.symlink_to(device)
    assert find_holders([device]) == [] and name_holders([device]) == ""
    with another_process(device, "0") as pid:
        for name in (device, str(link)):
            (holder,) = find_holders([name, "/dev/absent"])
            assert (holder.pid, holder.devices) == (pid, (name,))
        assert holder.name.startswith("python") and holder.command.endswith(device)
        assert name_holders([device]) == f"held by {holder.name} (pid {pid})"
        assert find_lock_holders([device]) == []


def test_who_has_a_device_locked_is_found(device, tmp_path):
    assert find_lock_holders([device]) == []
    with another_process(device, "fcntl.lockf(f, 2)") as pid:
        (holder,) = find_lock_holders([device, str(tmp_path / "absent")])
        assert (holder.pid, holder.devices) == (pid, (device,))
        assert str(holder) == f"{holder.name} (pid {pid})" and holder.name.startswith("python")
    assert find_lock_holders([device], tmp_path / "no locks") == []


def test_a_process_that_has_ended_meanwhile_is_named_all_the_same(device, tmp_path):
    status, locks = Path(device).stat(), tmp_path / "locks"
    node = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    locks.write_text(f"1: POSIX  ADVISORY  WRITE 999999999 {node} 0 EOF\n")
    assert str(find_lock_holders([device], locks)[0]) == "a process (pid 999999999)"


def test_a_process_s_own_memory_is_that_without_shared_memory(tmp_path, monkeypatch):
    """The rings are shared, and sized on purpose."""
    assert 5e6 < read_memory()[0] < 2e9
    (tmp_path / "7").mkdir()
    (tmp_path / "7/status").write_text("Name:\tx\nVmRSS:\t 1020000 kB\nRssShmem:\t 900000 kB\nVmSwap:\t 3 kB\n")
    monkeypatch.setattr(procfs, "PROC", tmp_path)
    assert read_memory(7) == (120_000 * 1024, 3 * 1024)


def test_the_boot_has_one_identity_for_all():
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip() and boot_id() is boot_id()
