"""`shmcam doctor`: what is installed may still not be importable."""

import sys
from types import SimpleNamespace

import pytest

from capture.sources.base import CameraError
from capture.sources.picamera2 import device
from shmcam.cli.doctor import camera, imports, machine
from shmcam.config.settings import Settings

NUMPY = 'raise ValueError("numpy.dtype size changed, may indicate binary incompatibility")'


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Gives a function that installs packages of this text, seen by this process and its children."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)

    def install(**texts):
        for name, text in texts.items():
            monkeypatch.delitem(sys.modules, name, raising=False)
            (tmp_path / f"{name}.py").write_text(text)

    return install


def test_a_package_that_is_there_but_breaks_at_its_import_is_named(packages):
    """Bookworm's simplejpeg beside numpy 2: doctor read the metadata and said that all was well."""
    packages(
        for_old_numpy=NUMPY,
        crashing="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        leaving="raise SystemExit(3)",
    )
    modules = ["json", "for_old_numpy", "crashing", "leaving", "not_there", "csv"]
    assert imports.find_import_errors(modules) == {
        "for_old_numpy": "ValueError: numpy.dtype size changed, may indicate binary incompatibility",
        "crashing": "the import ends Python with SIGSEGV",
        "leaving": "SystemExit: 3",
        "not_there": "ModuleNotFoundError: No module named 'not_there'",
    }


def test_an_import_that_hangs_is_named(packages, monkeypatch):
    monkeypatch.setattr(imports, "IMPORT_S", 1)
    packages(hanging="import time; time.sleep(1000)")
    assert imports.find_import_errors(["hanging"]) == {"hanging": "it hangs for 1 s"}


@pytest.mark.parametrize("text", [NUMPY, "raise AttributeError('_ARRAY_API not found')", "import not_there"])
def test_a_picamera2_that_cannot_be_imported_is_a_reason_and_no_end(packages, text):
    """Capture died of the ValueError, even with source = "auto"."""
    packages(picamera2=text, libcamera="")
    with pytest.raises(CameraError, match="Picamera2 does not work here"):
        device.list_cameras()
    [finding] = camera._check_picamera2(is_pi=False, is_wanted=True)
    assert finding.level == "problem" and finding.text.startswith("picamera2 cannot be imported: ")
    [finding] = camera._check_picamera2(is_pi=True, is_wanted=False)
    assert finding.level == "note"


@pytest.mark.parametrize(("uid", "removes", "warned"), [(1000, True, True), (1000, False, False), (998, True, False)])
def test_doctor_warns_where_logind_removes_rings(tmp_path, monkeypatch, uid, removes, warned):
    """logind removes the shared memory of a login user whose last session ends; a system user's it leaves."""
    config = tmp_path / "config.toml"
    config.write_text("")
    monkeypatch.setattr(machine.os, "getuid", lambda: uid)
    monkeypatch.setattr(machine, "user_name", str)
    monkeypatch.setattr(machine, "_is_ipc_removed", lambda: removes)
    findings = machine.check_permissions(SimpleNamespace(settings=lambda: Settings.load(config, environ={})))
    assert any("RemoveIPC" in finding.text for finding in findings) == warned
