"""The command line and the slave, as their users start them."""

import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shmcam.cli.completion import SHELLS, find_cameras, find_followers, write_script
from shmcam.cli.console.screen import View, draw_half_blocks, fit_size, render
from shmcam.cli.local_commands import summaries
from shmcam.cli.main import main
from shmcam.cli.shortstream import ShortStreamDecoder
from shmcam.control.client import ControlClient
from shmcam.control.command_table import COMMANDS
from shmcam.control.messages import Chunk, NightBegan, PreviewFrame, Reply
from shmcam.runtime.log_tail import LogFollower, merge_tails
from tests.machine import needs
from tests.shmcam.hub.hubs import HubProcess, until
from tests.shmcam.hub.test_server import serve

SHMCAM = str(Path(sys.executable).with_name("shmcam"))


@pytest.fixture(scope="module")
def hub():
    with (
        HubProcess() as running,
        ControlClient("exporter", socket_path=running.socket, commands=("save", "snapshot")) as exporter,
    ):
        stop = serve(exporter, lambda request: request.reply(saved()))
        until(lambda: exporter.is_connected, "exporter connected")
        yield running
        stop()


def saved():
    return Reply(status="saved", text="Saved single full-resolution image: /x.jpg", data={"path": "/x.jpg"})


def shmcam(hub, *words, **more):
    environ = {**os.environ, "SHMCAM_CONFIG": str(hub.config)}
    return subprocess.run(
        [SHMCAM, *words], capture_output=True, text=True, timeout=60, env=environ, cwd=hub.folder, **more
    )


def test_a_command_prints_its_answer_and_exits_0(hub):
    done = shmcam(hub, "save", "jpg")
    assert (done.returncode, done.stdout) == (0, "Saved single full-resolution image: /x.jpg\n")
    done = shmcam(hub, "--json", "save")
    assert json.loads(done.stdout) == {"ok": True, "status": "saved", "data": {"path": "/x.jpg"}}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["record", "start"], 1, "recorder is not connected"),
        (["record", "start", "nocam"], 2, "no camera 'nocam'; cameras: cam0"),
        (["timelapse", "nocam"], 2, "no camera 'nocam'; cameras: cam0"),
        (["record", "begin"], 2, "expected start|stop|status|trigger"),
        (["savee"], 2, "did you mean save?"),
        (["--bogus"], 2, "unknown option --bogus"),
        (["--timeout", "soon", "ping"], 2, "expected seconds"),
        (["set", "night.dark_threshold", "dark"], 1, "must be number"),
        (["--socket", "/nowhere/x.sock", "ping"], 69, "no hub at /nowhere/x.sock"),
        (["--config", "/nowhere/config.toml", "ping"], 78, "cannot be read"),
        (["logs", "nobody"], 1, "no log of 'nobody'"),
        (["shortstream", "3"], 2, "--out DIR is missing"),
        (["completion", "tcsh"], 2, "expected bash, zsh or fish"),
        (["subscribe", "nights"], 2, "no topic 'nights'"),
        (["doctor", "all"], 2, "'all' is too much; usage: doctor"),
        (["hooks", "test"], 2, "expected: shmcam hooks [list | test NAME]"),
        (["shortstream", "3", "--out", "/dev/null"], 1, "shmcam: /dev/null: File exists"),
        (["gen-cert", "--folder", "/dev/null"], 1, "shmcam: /dev/null: File exists"),
        (["pipe", "--write-fifo", "/nowhere/x"], 1, "shmcam: /nowhere/x: No such file or directory"),
        (["restart"], 69, "no supervisord at"),
        ([], 2, "usage: shmcam"),
    ],
)
def test_every_failure_has_its_exit_code_and_a_reason_on_stderr(hub, words, code, said):
    done = shmcam(hub, *words)
    assert (done.returncode, said in done.stderr) == (code, True), done
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["ping"], ["library", "list"]])
def test_output_that_cannot_be_written_is_told_and_a_reader_that_is_gone_is_no_error(hub, words):
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [SHMCAM, "--config", str(hub.config), *words]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, env=environ)
    assert (done.returncode, done.stderr) == (1, b"shmcam: No space left on device\n")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, timeout=60, env=environ)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", ["slave", "console", "top --once"])
def test_a_closed_stdin_or_stdout_is_an_empty_one(hub, words):
    """`slave` took the hub's socket, which got number 0, for its master, and never ended; the others had tracebacks."""
    line = f"exec {SHMCAM} --config {hub.config} {words} {'>' if words.startswith('top') else '<'}&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_of_everything(hub):
    done = shmcam(hub, "--help")
    assert done.returncode == 0
    for row in COMMANDS:
        assert row.words[0] in done.stdout
    for word in ("run", "console", "slave", "doctor", "logs", "completion", "shortstream", "restart", "subscribe"):
        helped = shmcam(hub, word, "--help")
        assert helped.returncode == 0, helped
        assert helped.stdout
    assert "example: echo save" in shmcam(hub, "save", "--help").stdout


def test_settings_from_the_shell(hub):
    assert shmcam(hub, "set", "night.dark_threshold=31").stdout.startswith(
        "OK: changed night.dark_threshold from 40.0 to 31.0"
    )
    assert shmcam(hub, "get", "night.dark_threshold").stdout.startswith("night.dark_threshold = 31.0")
    assert "dark_threshold = 31" in shmcam(hub, "dump_config", "toml").stdout


def test_subscribe_prints_events_as_they_come(hub):
    environ = {**os.environ, "SHMCAM_CONFIG": str(hub.config)}
    for typed, expected in (
        (["subscribe", "night"], "night_began camera=cam0"),
        (["--json", "subscribe", "night"], '"event":"night_began"'),
    ):
        with subprocess.Popen([SHMCAM, *typed], stdout=subprocess.PIPE, text=True, env=environ) as watching:
            try:
                assert "subscribed" in watching.stdout.readline()
                with ControlClient("analyzer", socket_path=hub.socket) as analyzer:
                    analyzer.announce(NightBegan(camera="cam0"))
                    assert expected in watching.stdout.readline()
                watching.send_signal(signal.SIGINT)
                assert watching.wait(60) == 130
            finally:
                watching.kill()  # leaving the block waits for its end


def test_shortstream_saves_files(hub, tmp_path):
    def answer(request):
        for number in range(3):
            jpeg = b"\xff\xd8" + bytes([number]) * 1000
            request.reply(Chunk(data=struct.pack(">I", len(jpeg)) + jpeg))
        request.reply(Chunk(data=b"\0\0\0\0", end=True))
        request.reply(Reply(status="stream_done", text="STREAM_DONE: sent=3, skipped=0, available=3"))

    with ControlClient("streamer", socket_path=hub.socket, commands=("short_stream",)) as streamer:
        until(lambda: streamer.is_connected, "connected")
        stop = serve(streamer, answer)
        done = shmcam(hub, "shortstream", "3", "--out", str(tmp_path / "frames"))
        stop()
    assert "STREAM_DONE: sent=3, skipped=0, available=3" in done.stdout
    assert [path.stat().st_size for path in sorted((tmp_path / "frames").iterdir())] == [1002] * 3


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_shortstream_frames_in_any_pieces(piece):
    data, found = b"".join(struct.pack(">I", n) + b"x" * n for n in (5, 1, 300)) + b"\0\0\0\0", []
    frames = ShortStreamDecoder(found.append)
    for start in range(0, len(data), piece):
        frames.feed(data[start : start + piece])
    assert [len(frame) for frame in found] == [5, 1, 300]
    assert frames.is_at_end
    with pytest.raises(ValueError, match="out of step"):
        ShortStreamDecoder(found.append).feed(b"\xff\xff\xff\xff")


def test_logs_are_merged_by_time_and_followed(tmp_path):
    def line(second, text):
        return f"2026-11-21T08:00:{second:02}.000Z INFO    x  {text}\n"

    (tmp_path / "capture.log").write_text(line(1, "one") + line(4, "four") + "Traceback of four\n")
    (tmp_path / "recorder.log").write_text(line(2, "two") + line(5, "five"))
    shown = merge_tails(tmp_path, "", 10)
    assert [text.split()[-1] for text in shown] == ["one", "two", "four", "four", "five"]
    assert merge_tails(tmp_path, "recorder", 1)[0].endswith("five")
    assert merge_tails(tmp_path, "recorder", 0) == []
    assert merge_tails(tmp_path, "nobody", 1) is None
    follower = LogFollower(tmp_path, "")
    with (tmp_path / "capture.log").open("a") as file:
        file.write(line(6, "six") + "half a li")
    (tmp_path / "exporter.log").write_text(line(7, "seven"))
    assert [text.split()[-1] for text in follower.read_new()] == ["six", "seven"]
    (tmp_path / "recorder.log").rename(tmp_path / "recorder.log.1")
    (tmp_path / "recorder.log").write_text(line(8, "eight"))
    assert [text.split()[-1] for text in follower.read_new()] == ["eight"]


def test_logs_f_shows_what_follows(hub):
    environ = {**os.environ, "SHMCAM_CONFIG": str(hub.config)}
    with subprocess.Popen([SHMCAM, "logs", "-f", "hub"], stdout=subprocess.PIPE, text=True, env=environ) as following:
        lines = []
        threading.Thread(target=lambda: lines.extend(iter(following.stdout.readline, "")), daemon=True).start()
        try:
            until(lambda: lines, "old lines, although nothing new is logged")
            hub.text("set night.min_dark_frames 12")
            until(lambda: any("night.min_dark_frames" in line for line in lines), "the new line")
            following.send_signal(signal.SIGINT)
            assert following.wait(60) == 130
        finally:
            following.kill()


JSON_WORDS = [
    "--version", "ping", "status", "record foo", "nosuch", "save seconds_ago=soon", "processes", "get cameras",
    "help save", "--help", "restart", "logs -n 3", "logs nosuch", "completion nosuch", "library show 99999",
    "library nosuch", "archive verify nosuch", "gen-cert --folder /dev/null",
]  # fmt: skip


@pytest.mark.parametrize("words", JSON_WORDS)
def test_every_word_answers_in_json_when_asked_also_with_what_is_wrong(hub, words, monkeypatch, capsys):
    monkeypatch.setenv("SHMCAM_CONFIG", str(hub.config))
    monkeypatch.chdir(hub.folder)
    code = main(["--json", *words.split()])
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is (code == 0)
    if code:
        for unreadable in ("`", "regex", "Traceback", "float", "str ", "<class"):
            assert unreadable not in answer["data"]["message"]


def test_completion_offers_the_cameras_of_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "config.toml").write_text("[cameras.porch]\n[cameras.barn]\n")
    monkeypatch.setenv("SHMCAM_CONFIG", str(tmp_path / "config.toml"))
    find_cameras.cache_clear()
    assert {"porch", "barn", "start"} <= set(find_followers()["record"])
    find_cameras.cache_clear()


# ---- the slave, driven by a master program as the user's manual shows


def test_a_master_program_drives_the_slave(hub):
    environ = {**os.environ, "SHMCAM_CONFIG": str(hub.config)}
    command = [SHMCAM, "slave"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, bufsize=1, env=environ, **pipes) as slave:
        try:
            drive(slave, hub)
            assert slave.wait(60) == 0
            assert slave.stderr.read() == ""
        finally:
            slave.kill()


def drive(slave, hub):
    def command(**fields):
        slave.stdin.write(json.dumps(fields) + "\n")
        slave.stdin.flush()
        return json.loads(slave.stdout.readline())

    assert json.loads(slave.stdout.readline())["status"] == "ready"
    answer = command(command="take_snapshot")
    assert list(answer) == ["type", "status", "timestamp", "data"]
    assert (answer["type"], answer["status"], answer["data"]["path"]) == ("status", "snapshot_taken", "/x.jpg")
    assert command(command="get_status")["data"]["processes"]
    assert command(command="start_recording")["type"] == "error"
    assert "did you mean" in command(command="take_snapsot")["data"]["message"]
    slave.stdin.write("not json\n")
    slave.stdin.flush()
    assert json.loads(slave.stdout.readline())["data"]["reason"] == "bad_message"
    with ControlClient("streamer", socket_path=hub.socket, commands=("preview",)) as streamer:
        until(lambda: streamer.is_connected, "connected")
        assert command(command="toggle_preview", camera_id=0, enabled=True)["status"] == "preview_enabled"
        streamer.announce(PreviewFrame(camera="cam0", jpeg=b"\xff\xd8\xff"))
        frame = json.loads(slave.stdout.readline())
        assert (frame["type"], frame["data"]["camera_id"], frame["data"]["frame"]) == ("preview_frame", "cam0", "/9j/")
    assert command(command="quit")["status"] == "bye"


def test_the_end_of_stdin_ends_the_slave_after_its_answers(hub):
    done = shmcam(hub, "slave", input='{"command": "ping"}\n{"command": "take_snapshot"}\n')
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["ready", "pong", "snapshot_taken"]
    assert done.returncode == 0


def test_the_slave_answers_in_the_order_of_the_lines_whatever_they_are(hub):
    """A line that is no JSON was answered before the commands that stood above it, and a master took it for theirs."""
    lines = ["no json", '{"command": "take_snapshot"}', "[1]", '{"command": "nosuch"}', '{"x"', '{"command": "ping"}']
    done = shmcam(hub, "slave", input="\n".join(lines * 20))  # the last one without a newline
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["data"].get("reason", answer["status"]) for answer in answers] == [
        "ready",
        *["bad_message", "snapshot_taken", "bad_message", "unknown_command", "bad_message", "pong"] * 20,
    ]
    assert done.returncode == 0


def test_a_line_of_the_master_that_is_too_long_is_told(hub):
    done = shmcam(hub, "slave", input="x" * 100_000)
    ready, refused = map(json.loads, done.stdout.splitlines())
    assert (ready["status"], refused["status"], refused["data"]["reason"]) == ("ready", "error", "too_long")


def test_a_slave_without_a_service_says_so_in_json(tmp_path):
    done = subprocess.run(
        [SHMCAM, "--socket", str(tmp_path / "x"), "slave"], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, json.loads(done.stdout)["data"]["reason"]) == (69, "no_hub")


# ---- the console


def test_plain_console_reads_r_s_q(hub):
    done = shmcam(hub, "console", "--plain", input="s\nr\nx\nq\n")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[1] == "Saved single full-resolution image: /x.jpg"
    assert lines[2].startswith("ERROR: recorder is not connected")
    assert lines[3] == "no key 'x'"


@needs("tmux")
def test_the_console_in_a_terminal(hub):
    import numpy
    import simplejpeg

    picture = simplejpeg.encode_jpeg(numpy.full((90, 160, 3), (200, 30, 30), numpy.uint8))
    tmux = ["tmux", "-f", "/dev/null", "-u", "-S", str(hub.folder / "tmux")]  # nobody's configuration, any locale
    command = f"SHMCAM_CONFIG={hub.config} {SHMCAM} console; echo ended $?; sleep 60"
    begin = [*tmux, "new-session", "-d", "-x", "100", "-y", "40", command]
    until(lambda: subprocess.run(begin, timeout=60).returncode == 0, "tmux, which on a busy machine fails to begin")

    def shown(*more):
        return subprocess.run([*tmux, "capture-pane", "-p", *more], capture_output=True, text=True, timeout=60).stdout

    def press(key):
        subprocess.run([*tmux, "send-keys", key], check=True, timeout=60)

    try:
        until(lambda: "shmcam" in shown() and "exporter" in shown() and "q quit" in shown(), "the screen")
        press("s")
        until(lambda: "> Saved single full-resolution image: /x.jpg" in shown(), "the answer to s")
        press("r")
        until(lambda: "> ERROR: recorder is not connected" in shown(), "the answer to r")
        with ControlClient("streamer", socket_path=hub.socket, commands=("preview",)) as streamer:
            until(lambda: streamer.is_connected, "connected")

            def sent():
                streamer.announce(PreviewFrame(camera="cam0", jpeg=picture))
                return "▀" in shown()

            until(sent, "a picture in half blocks")
            assert "38;2;" in shown("-e")
        press("q")
        until(lambda: "ended 0" in shown(), "the shell is back")
        assert "q quit" not in shown(), "the screen was given back"
    except AssertionError as problem:
        raise AssertionError(f"{problem}; the screen:\n{shown()}") from problem
    finally:
        subprocess.run([*tmux, "kill-server"], timeout=60)


def test_half_blocks_and_their_size():
    lines = draw_half_blocks([[(255, 0, 0), (255, 0, 0)], [(0, 0, 255), (0, 0, 255)], [(1, 2, 3), (4, 5, 6)]])
    assert lines[0] == "\x1b[38;2;255;0;0;48;2;0;0;255m▀▀\x1b[0m"
    assert len(lines) == 2
    assert fit_size(1280, 720, 80, 20) == (71, 40)
    assert fit_size(1, 1000, 80, 20) == (2, 40)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (20, 5), (200, 60), (1, 1)])
def test_the_screen_fits_whatever_the_terminal(columns, rows):
    process = {
        "program": "x" * 40,
        "state": "running",
        "fps": 1.0,
        "lag": 2,
        "laps": 3,
        "rss_bytes": 9,
        "reason": "y" * 300,
    }
    camera = {
        "camera": "cam0",
        "state": "found",
        "source": "s",
        "model": "m",
        "mode": "video",
        "reason": "",
        "recording": "a",
        "night": True,
    }
    view = View(
        status={"cameras": [camera], "processes": [process] * 9}, log=["l" * 500] * 99, picture=["▀" * 300] * 50
    )
    lines = render(view, columns, rows)
    assert len(lines) == rows
    for line in lines:
        assert len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= columns


# ---- completion


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts_are_accepted_by_their_shells(shell, tmp_path):
    path = tmp_path / "script"
    path.write_text(write_script(shell))
    assert "record" in path.read_text()
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(path)], check=True, timeout=60)


def test_bash_completes_words_and_what_follows(tmp_path):
    path = tmp_path / "script"
    path.write_text(write_script("bash"))
    (tmp_path / "folder").mkdir()

    def complete(*typed):
        line = " ".join(f"'{word}'" for word in typed)
        asked = f"COMP_WORDS=({line}); COMP_CWORD={len(typed) - 1}"
        code = f"source {path}; {asked}; _shmcam 2>/dev/null; echo ${{COMPREPLY[@]}}"
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60).stdout.split()

    assert complete("shmcam", "rec") == ["record"]
    assert set(complete("shmcam", "record", "st")) == {"start", "stop", "status"}
    assert complete("shmcam", "record", "start", "dur") == ["duration_s="]
    assert "night.dark_threshold" in complete("shmcam", "set", "night.dark")
    assert "recorder" in complete("shmcam", "restart", "")
    assert complete("shmcam", "restart", "hub", "record") == ["recorder"]
    assert complete("shmcam", "--config", "x.toml", "--json", "restart", "record") == ["recorder"]
    assert complete("shmcam", "save", "jpg", "--js") == ["--json"]
    assert complete("shmcam", "library", "list", "--ki") == ["--kind"]
    assert complete("shmcam", "logs", "-f", "-n", "5", "record") == ["recorder"]
    assert set(complete("shmcam", "--config", f"{tmp_path}/")) == {f"{tmp_path}/script", f"{tmp_path}/folder"}
    assert complete("shmcam", "shortstream", "3", "--out", f"{tmp_path}/") == [f"{tmp_path}/folder"]
    assert complete("shmcam", "help", "doct") == ["doctor"]
    assert set(summaries()) >= {"save", "run", "doctor", "restart"}


@needs("fish")
def test_fish_completes_words_and_what_follows(tmp_path):
    path = tmp_path / "script"
    path.write_text(write_script("fish"))

    def complete(typed):
        code = f"source {path}; complete -C '{typed}'"
        environ = {**os.environ, "HOME": str(tmp_path)}
        done = subprocess.run(["fish", "-N", "-c", code], capture_output=True, text=True, timeout=30, env=environ)
        assert not done.stderr
        return [line.partition("\t")[0] for line in done.stdout.splitlines()]

    assert complete("shmcam rec") == ["record"]
    assert set(complete("shmcam record st")) == {"start", "status", "stop"}
    assert complete("shmcam --config x.toml --json restart record") == ["recorder"]
    assert "night.dark_threshold" in complete("shmcam set night.dark")
    assert "--config" in complete("shmcam --c")
    assert complete("shmcam save jpg --js") == ["--json"]
    assert complete("shmcam save jpg lab") == ["label="]
    assert complete("shmcam library list --ki") == ["--kind"]
    assert complete("shmcam restart hub record") == ["recorder"]
    assert complete(f"shmcam --config {tmp_path}/scr") == [f"{tmp_path}/script"]
    (tmp_path / "folder").mkdir()
    assert complete(f"shmcam shortstream 3 --out {tmp_path}/f") == [f"{tmp_path}/folder/"]


def test_bash_writes_a_field_without_a_space_behind_it(tmp_path):
    """As people see it: in a terminal of their own."""
    (tmp_path / "script").write_text(write_script("bash"))
    with Terminal("bash", "--norc", "-i", environ={"HOME": str(tmp_path), "PS1": "", "TERM": "dumb"}) as shell:
        shell.type(f"bind 'set enable-bracketed-paste off'; source {tmp_path}/script; echo rea''dy\n")
        shell.expect("ready\r\n")
        for typed, shown in (("shmcam save lab\tx", "label=x"), ("shmcam rec\tx", "record x")):
            shell.type(typed)
            shell.expect(shown)
            shell.type("\x15")


@needs("zsh")
@pytest.mark.parametrize("how", ["autoloaded", "sourced"])
def test_zsh_completes_words_and_what_follows(tmp_path, how):
    """In a terminal of its own, as zsh completes nowhere else."""
    (tmp_path / "_shmcam").write_text(write_script("zsh"))
    load = f"fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -D"
    load += f"; source {tmp_path}/_shmcam" if how == "sourced" else ""
    with Terminal("zsh", "-f", "-i", environ={"HOME": str(tmp_path), "PS1": "", "TERM": "dumb"}) as shell:
        shell.type(f"unsetopt zle_bracketed_paste beep; {load}; echo rea''dy\n")
        shell.expect("ready")
        for typed, shown in (
            ("shmcam rec\t", "record "),
            ("shmcam record sto\t", "stop "),
            ("shmcam --config x.toml --json restart recor\t", "recorder "),
            ("shmcam set night.dark_th\t", "night.dark_threshold "),
            ("shmcam save lab\tx", "label=x"),
            ("shmcam save jpg lab\tx", "label=x"),
            ("shmcam --js\t", "--json "),
            ("shmcam save --js\t", "--json "),
            ("shmcam library unpro\t", "unprotect "),
            ("shmcam library list --ki\t", "--kind "),
            ("shmcam restart hub recor\t", "recorder "),
            ("shmcam run --verb\t", "--verbose "),
            (f"shmcam --config {tmp_path}/_sh\t", "_shmcam "),
        ):
            shell.type(typed)
            shell.expect(shown)
            shell.type("\x15")


class Terminal:
    """A program in a pseudo terminal of its own."""

    def __init__(self, *command, environ):
        self.output = ""
        self.command, self.environ = command, {**os.environ, **environ}

    def __enter__(self):
        self.descriptor, slave = pty.openpty()
        self.process = subprocess.Popen(
            self.command, stdin=slave, stdout=slave, stderr=slave, env=self.environ, start_new_session=True
        )
        os.close(slave)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)
        os.close(self.descriptor)

    def type(self, text):
        self.output = ""
        os.write(self.descriptor, text.encode())

    def expect(self, text):
        def is_shown():
            if select.select([self.descriptor], [], [], 0.05)[0]:
                self.output += os.read(self.descriptor, 4096).decode(errors="replace")
            return text in self.output

        until(is_shown, f"{text!r} is shown", 30)


def test_doctor_finds_a_taken_port_and_a_folder_it_may_not_write(tmp_path):
    import socket

    with socket.socket() as taken, HubProcess() as hub:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        hub.config.write_text(f"[mjpeg_server]\nport = {taken.getsockname()[1]}\n")
        hub.stop()
        done = shmcam(hub, "doctor")
        assert done.returncode == 1
        assert "is taken by another program" in done.stdout
        assert "type: sudo ss -ltnp" in done.stdout
        found = json.loads(shmcam(hub, "--json", "doctor").stdout)
        assert found["ok"] is False
        assert {row["topic"] for row in found["findings"]} >= {"software", "camera", "memory", "disk", "clock", "ports"}
