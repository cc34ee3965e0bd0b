"""What a break-in would find: the sandbox of the service, judged by systemd itself."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.machine import needs

UNIT = Path(__file__).parents[2] / "packaging" / "shmcam.service"
CAMERAS = ("char-video4linux", "char-media", "char-drm", "/dev/dma_heap/", "/dev/vchiq", "/dev/vcsm-cma")
EXPOSURE_MAX = 4.0

pytestmark = [
    needs("systemd-analyze"),
    pytest.mark.skipif(not os.access("/tmp", os.W_OK), reason="systemd-analyze writes in /tmp, and nowhere else"),
]


@pytest.fixture(autouse=True)
def _judges_files():
    if int(analyze("--version").stdout.split()[1]) < 250:
        pytest.skip("systemd-analyze judges files that are not installed since systemd 250")


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


def is_safe_enough(unit: Path) -> bool:
    """Ask systemd for the exposure of a unit that need not be installed."""
    done = analyze("security", "--offline=yes", f"--threshold={EXPOSURE_MAX * 10:.0f}", "--no-pager", str(unit))
    assert "Overall exposure level" in done.stdout, done.stderr
    return done.returncode == 0


def said(name: str) -> list[str]:
    """What the unit says about one thing, line by line."""
    lines = (line.partition("=") for line in UNIT.read_text().splitlines())
    return [value for key, _, value in lines if key == name]


def test_systemd_finds_the_service_confined_and_would_notice_if_it_were_not(tmp_path):
    assert is_safe_enough(UNIT)
    loose = tmp_path / UNIT.name
    fences = ("Protect", "Restrict", "SystemCall", "Capability", "NoNew", "Private", "Device")
    loose.write_text("\n".join(line for line in UNIT.read_text().splitlines() if not line.startswith(fences)))
    assert not is_safe_enough(loose)


def test_systemd_knows_every_line_of_the_unit(tmp_path):
    """A misspelt fence is none: systemd warns in its journal, and goes on without it."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/shmcam/.venv/bin/", f"{tmp_path}/"))
    for name in ("shmcam", "supervisorctl"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert copy.name not in analyze("verify", "--man=no", str(copy)).stderr


def test_the_fences_that_are_promised_stand():
    assert said("ProtectSystem") == ["strict"]
    yes = (
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "ProtectControlGroups",
        "ProtectHostname",
        "ProtectKernelLogs",
    )
    yes += (
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
    )
    for fence in yes:
        assert said(fence) == ["yes"], fence
    assert said("SystemCallFilter")[:2] == ["@system-service", "~@privileged @resources"]
    assert said("SystemCallArchitectures") == ["native"] and said("ProtectProc") == ["invisible"]
    assert said("User") == ["shmcam"]
    assert said("CapabilityBoundingSet") == [""]
    assert set(said("RestrictAddressFamilies")[0].split()) == {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}
    assert said("DevicePolicy") == ["closed"]
    assert said("DeviceAllow")
    assert all(device.startswith(CAMERAS) for device in said("DeviceAllow"))
    assert said("MemoryMax")
    assert said("TasksMax")


def test_the_clock_s_error_may_be_read():
    """mqtt and the fleet tell it; setting the clock needs a capability that the service does not have."""
    assert any("adjtimex" in line.split() for line in said("SystemCallFilter")) and said("ProtectClock") == []
    assert said("CapabilityBoundingSet") == [""]
