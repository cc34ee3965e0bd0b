"""What `shmcam run` writes and prints, wherever it is run."""

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
from configparser import RawConfigParser
from contextlib import suppress
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from shmcam.cli import send  # noqa: F401 - another user may not read Python's library where it is root's
from shmcam.cli.options import EXIT_UNAVAILABLE, Options
from shmcam.cli.run import command as run_command
from shmcam.cli.run.banner import banner_of
from shmcam.cli.run.command import build_parser, overrides_of
from shmcam.cli.run.start_checks import find_path_problem
from shmcam.cli.supervisorctl import run_supervisorctl
from shmcam.config.settings import Settings
from shmcam.runtime import supervisord_programs
from shmcam.runtime.supervisord import SOCKET, find_owner
from shmcam.runtime.supervisord_programs import TEMPLATE, render_programs, render_supervisord_conf
from tests.machine import SHORT, needs

SHMCAM = Path(sys.executable).with_name("shmcam")
ODD = "50% [a] 'b' c, d: {e} (f)!"


def settled(folder, text="[cameras.cam0]\n[cameras.cam1]\n"):
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(text)
    return Settings.load(folder / "config.toml", environ={})


NAMES = """plain|two words|cam #1|cam#1|north; south|a ;b|say "hi"|it's|"both" 'quotes'|50%|100%%|%(here)s|%(x)s
%%(here)s|$HOME|a\\b|Höhle|日本|tab\there|*|[ab]|?|~x| lead|trail |nbsp\u00a0| #|;|-x|a=b|a,b|&|(x)|{y}|!|`ls`|<a>"""


@pytest.mark.parametrize("name", [*re.split("[|\n]", NAMES), ODD])
def test_supervisord_reads_the_same_places_whatever_the_folder_is_called(tmp_path, name):
    """A % in the folder's name ended `shmcam run` with supervisord's words about format characters."""
    settings = settled(tmp_path / name)
    conf = run_command.prepare(settings)
    options = ServerOptions()
    options.realize(["-c", str(conf), "-n"])
    groups = {config.name: config for group in options.process_group_configs for config in group.process_configs}
    assert {"hub", "capture", "capture-cam1", "watchdog"} <= groups.keys()
    logs = {config.stdout_logfile for config in groups.values() if config.name != "watchdog"}
    assert logs == {str(settings.paths.logs / f"{n}.startup.log") for n in groups if n != "watchdog"}
    supervisord = options.configroot.supervisord
    if not {"'", '"'} <= set(name):  # then the programs inherit it
        assert supervisord.environment["SHMCAM_CONFIG"] == str(settings.path)
    assert options.configroot.supervisord.server_configs[0]["file"] == str(settings.paths.run / "supervisor.sock")
    assert shlex.split(groups["hub"].command) == [sys.executable, "-m", "shmcam.hub"]
    assert supervisord.directory == str(settings.folder)
    assert render_programs(settings, render_supervisord_conf(settings, TEMPLATE.read_text()), "").keys() == {
        "cam1.conf"
    }


@pytest.mark.parametrize("wrapper", ["/usr/local/bin/my-exporter", "nice -n 5 %(here)s/run-exporter.sh"])
def test_an_optional_program_is_no_second_exporter_where_that_has_a_script_around_it(wrapper, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/100% #1/%(here)s/python")
    settings = settled(tmp_path / "a", "[mqtt]\nenable = true\n")
    conf = f"[program:exporter]\ncommand={wrapper}\npriority=30\n"
    parser = RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(render_programs(settings, conf, "/here")["mqtt.conf"])
    command = parser["program:mqtt"]["command"] % {"here": "/here"}
    assert shlex.split(command) == ["/100% #1/%(here)s/python", "-m", "shmcam.mqtt"]
    assert parser["program:mqtt"]["priority"] == "30"


def test_a_clone_s_own_conf_is_used_only_where_its_path_means_the_same_everywhere(tmp_path, monkeypatch):
    """A clone in "My Camera" printed its banner, and all seven programs were FATAL."""
    for name, is_plain in (("shmcam", True), ("Höhle", True), ("My Camera", False), ("a#b", False), ("x'y", False)):
        home = tmp_path / name
        (home / ".venv/bin").mkdir(parents=True)
        (home / ".venv/bin/python").touch()
        monkeypatch.setattr(supervisord_programs, "HOME", home)
        monkeypatch.setattr(supervisord_programs, "SHIPPED", home / "config.toml")
        assert supervisord_programs.is_home(settled(home)) == is_plain


@pytest.mark.parametrize("length", [75, 84, 85, 91, 110])
def test_a_path_too_long_for_a_socket_is_refused_by_name_before_anything_starts(length):
    """`run` printed its banner, then supervisord said "AF_UNIX path too long"; doctor found nothing below 91."""
    with tempfile.TemporaryDirectory(dir=SHORT) as short:
        folder = Path(short) / ("x" * (length - len(short) - 1))
        settings = settled(folder)
        problem = find_path_problem(settings)
        sock = f"{settings.paths.run / 'supervisor.sock'}.{4194304}"
        with socket.socket(socket.AF_UNIX) as probe:
            settings.paths.run.mkdir()
            try:
                probe.bind(sock)
            except OSError:
                assert f"{length + 20} bytes long, 99 are possible: {folder}/run/supervisor.sock" in problem
                done = subprocess.run(
                    [SHMCAM, "run", "--config", settings.path], capture_output=True, text=True, timeout=60
                )
                assert (done.returncode, done.stdout) == (78, "") and problem in done.stderr
                assert not list(settings.paths.run.glob("supervisor*"))
            else:
                assert not problem


def test_a_path_that_supervisord_cannot_read_is_refused_by_name(tmp_path):
    for name, words in (("new\nline", "a line break"), ("latin\udce9", "not UTF-8")):
        assert words in find_path_problem(settled(tmp_path / name))


def test_a_link_to_where_the_library_cannot_follow_is_refused_by_name(tmp_path):
    """No row could hold the path of a clip there."""
    (tmp_path / "latin\udce9").mkdir()
    (tmp_path / "recordings").symlink_to(tmp_path / "latin\udce9")
    problem = find_path_problem(settled(tmp_path))
    place = os.fsencode(tmp_path / "latin\udce9")
    assert problem == f"{place!r}: the library cannot use a path that is not UTF-8; rename that folder"


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
        banner = banner_of(settings, settings.paths.run / "supervisord.conf")
        [line] = [row for row in banner.splitlines() if row.startswith("  save")]
        done = subprocess.run(["bash", "-c", line.split(None, 1)[1]], capture_output=True, text=True, timeout=60)
        thread.join(20)
    assert done.stdout == "save\n", done.stderr


def test_without_a_config_the_clone_s_own_is_named_and_an_installed_one_copied(tmp_path, monkeypatch, capsys):
    """What pip installed belongs to nobody: run/ and captures/ must not appear inside the Python installation."""
    monkeypatch.chdir(tmp_path)
    assert run_command.choose_config(run_command.SHIPPED) == run_command.SHIPPED
    assert f"no config.toml in this folder: running {run_command.SHIPPED}" in capsys.readouterr().out
    own = tmp_path / "elsewhere.toml"
    assert run_command.choose_config(own) == own
    assert not capsys.readouterr().out
    monkeypatch.setattr(run_command, "HOME", run_command.INSTALLED)
    assert run_command.choose_config(run_command.SHIPPED) == tmp_path / "config.toml"
    assert (tmp_path / "config.toml").read_text() == run_command.SHIPPED.read_text()
    assert "wrote one" in capsys.readouterr().out


def test_a_taken_port_is_printed_instead_of_an_address_that_another_instance_answers(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (tmp_path / "config.toml").write_text(f"[mjpeg_server]\nport = {port}\n")
        settings = Settings.load(tmp_path / "config.toml", environ={})
        banner = banner_of(settings, settings.paths.run / "supervisord.conf")
        assert f"port {port} is taken by pid {os.getpid()} (" in banner
        assert "http://" not in banner
    assert f"http://127.0.0.1:{port}/stream" in banner_of(settings, settings.paths.run / "supervisord.conf")


@pytest.mark.parametrize(("users", "expected"), [(0o022, 0o027), (0o077, 0o077), (0o002, 0o027), (0, 0o027)])
def test_files_are_for_the_group_at_most_and_for_nobody_else_where_the_user_wants_that(
    users, expected, tmp_path, monkeypatch
):
    """With umask 077 recordings, pictures and logs were readable for the group."""
    config = settled(tmp_path / "a").path
    monkeypatch.setattr(run_command.os, "execve", lambda *_: 0)
    before = os.umask(users)
    try:
        assert run_command.run_supervised(["--config", str(config)]) == 0
        assert os.umask(before) == expected
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to ask as nobody")
@pytest.mark.parametrize("mode", [0o755, 0o700])
@pytest.mark.parametrize(("word", "rest"), [("restart", ["recorder"]), ("processes", [])])
def test_who_may_not_use_the_socket_of_supervisord_is_told_to_take_sudo(mode, word, rest, capfd):
    """A member of the service's group was told that the socket was gone, and given a signal that restarts all."""
    with tempfile.TemporaryDirectory(dir=SHORT) as folder, socket.socket(socket.AF_UNIX) as listener:
        Path(folder).chmod(mode)
        settings = settled(Path(folder), '[paths]\nrun = "."')
        listener.bind(f"{folder}/{SOCKET}")
        listener.listen()
        Path(f"{folder}/{SOCKET}").chmod(0o700)
        if (child := os.fork()) == 0:
            with suppress(BaseException):
                os.setgroups([])
                os.setresuid(65534, 65534, 65534)
                os._exit(run_supervisorctl(Options(word=word, rest=rest, _settings=settings)))
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == EXIT_UNAVAILABLE
        line = f"{folder}/{SOCKET} is for user root only; type: sudo shmcam {' '.join([word, *rest])}\n"
        assert line in capfd.readouterr().err
        assert find_owner(Path(folder) / SOCKET) == "", "root may"


def test_the_options_of_the_former_camera_module_are_settings_of_this_start(tmp_path):
    line = (
        "--resolution 2 --target-fps 25 --preview-size 7 --output-dir out --session-prefix 007 --mode headless "
        "--no-auto-start-recording --no-preview --no-console --libcamera-log-level warn --log-level debug "
        "--discovery-retry 3"
    )
    overrides = overrides_of(build_parser().parse_args(line.split()))
    (tmp_path / "config.toml").write_text("")
    settings = Settings.load(tmp_path / "config.toml", overrides, environ={})
    expected = {
        "camera.preset": 2,
        "camera.framerate": 25.0,
        "mjpeg_server.width": 320,
        "paths.recordings": str(Path("out").absolute()),
        "recorder.session_prefix": "007",
        "recorder.auto_start": False,
        "logging.level": "DEBUG",
        "logging.libcamera": "WARN",
    }
    assert {key: settings.value(key) for key in expected} == expected
    assert overrides_of(build_parser().parse_args(["--mode", "headless"])) == ["recorder.auto_start=true"]
    assert overrides_of(build_parser().parse_args([])) == []
