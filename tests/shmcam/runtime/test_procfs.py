"""What is read from /proc."""

from pathlib import Path

from shmcam.runtime.procfs import boot_id


def test_the_boot_has_one_identity_for_all():
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip() and boot_id() is boot_id()
