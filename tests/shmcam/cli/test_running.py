"""What `shmcam run` writes and prints, wherever it is run."""

import os
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from shmcam.cli import run
from shmcam.config.settings import Settings
from shmcam.runtime.supervisord_programs import TEMPLATE, render_programs, render_supervisord_conf
from tests.machine import SHORT, needs

ODD = "50% [a] 'b' c, d: {e} (f)!"


def settled(folder, text="[cameras.cam0]\n[cameras.cam1]\n"):
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(text)
    return Settings.load(folder / "config.toml", environ={})


@pytest.mark.parametrize("name", ["plain", ODD, "100%%"])
def test_supervisord_reads_the_same_places_whatever_the_folder_is_called(tmp_path, name):
    """A % in the folder's name ended `shmcam run` with supervisord's words about format characters."""
    settings = settled(tmp_path / name)
    conf = run.prepare(settings)
    options = ServerOptions()
    options.realize(["-c", str(conf), "-n"])
    groups = {config.name: config for group in options.process_group_configs for config in group.process_configs}
    assert {"hub", "capture", "capture-cam1", "watchdog"} <= groups.keys()
    logs = {config.stdout_logfile for config in groups.values() if config.name != "watchdog"}
    assert logs == {str(settings.paths.logs / f"{n}.startup.log") for n in groups if n != "watchdog"}
    supervisord = options.configroot.supervisord
    assert supervisord.environment["SHMCAM_CONFIG"] == str(settings.path)
    assert supervisord.directory == str(settings.folder)
    assert render_programs(settings, render_supervisord_conf(settings, TEMPLATE.read_text()), "").keys() == {
        "cam1.conf"
    }


@needs("socat")
def test_the_printed_line_works_from_any_folder(monkeypatch):
    monkeypatch.chdir("/")
    with tempfile.TemporaryDirectory(dir=SHORT) as short, socket.socket(socket.AF_UNIX) as hub:
        settings = settled(Path(short) / ODD)
        settings.paths.run.mkdir()
        hub.bind(str(settings.socket_path))
        hub.listen()
        hub.settimeout(60)

        def answer():
            link, _ = hub.accept()
            link.sendall(link.recv(100))
            link.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        banner = run.banner_of(settings, settings.paths.run / "supervisord.conf")
        [line] = [row for row in banner.splitlines() if row.startswith("  save")]
        done = subprocess.run(["bash", "-c", line.split(None, 1)[1]], capture_output=True, text=True, timeout=60)
        thread.join(20)
    assert done.stdout == "save\n", done.stderr


def test_without_a_config_the_clone_s_own_is_named_and_an_installed_one_copied(tmp_path, monkeypatch, capsys):
    """What pip installed belongs to nobody: run/ and captures/ must not appear inside the Python installation."""
    monkeypatch.chdir(tmp_path)
    assert run.choose_config(run.SHIPPED) == run.SHIPPED
    assert f"no config.toml in this folder: running {run.SHIPPED}" in capsys.readouterr().out
    own = tmp_path / "elsewhere.toml"
    assert run.choose_config(own) == own
    assert not capsys.readouterr().out
    monkeypatch.setattr(run, "HOME", run.INSTALLED)
    assert run.choose_config(run.SHIPPED) == tmp_path / "config.toml"
    assert (tmp_path / "config.toml").read_text() == run.SHIPPED.read_text()
    assert "wrote one" in capsys.readouterr().out


def test_a_taken_port_is_printed_instead_of_an_address_that_another_instance_answers(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (tmp_path / "config.toml").write_text(f"[mjpeg_server]\nport = {port}\n")
        settings = Settings.load(tmp_path / "config.toml", environ={})
        banner = run.banner_of(settings, settings.paths.run / "supervisord.conf")
        assert f"port {port} is taken by pid {os.getpid()} (" in banner
        assert "http://" not in banner
    assert f"http://127.0.0.1:{port}/stream" in run.banner_of(settings, settings.paths.run / "supervisord.conf")
