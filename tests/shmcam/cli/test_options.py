"""The command line, taken apart: every line means what it meant before argparse read it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shmcam.cli import library
from shmcam.cli.certificate import build_parser as build_certificate_parser
from shmcam.cli.local_commands import ELSEWHERE, LOCAL, SUPERVISOR, help_of, summaries
from shmcam.cli.main import main
from shmcam.cli.options import Options, UsageError, WordParser, read
from shmcam.control.command_table import COMMANDS, JSON_WORDS, find
from shmcam.runtime.supervisord_programs import SHIPPED

CONFIG = Path("/somewhere/config.toml")


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("SHMCAM_CONFIG", str(CONFIG))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("--help", {"help": True}),
        ("-h logs", {"help": True, "word": "logs"}),
        ("ping", {"word": "ping"}),
        ("--json status", {"json": True, "word": "status"}),
        ("status --json", {"json": True, "word": "status"}),
        ("save jpg --json png", {"json": True, "word": "save", "rest": ["jpg", "png"]}),
        ("--timeout 5 save", {"timeout": 5.0, "word": "save"}),
        ("save --timeout=0.5 jpg", {"timeout": 0.5, "word": "save", "rest": ["jpg"]}),
        ("--config x.toml ping", {"config": Path("x.toml"), "word": "ping"}),
        ("ping --config=x.toml", {"config": Path("x.toml"), "word": "ping"}),
        ("ping --socket a/b.sock --help", {"socket": Path("a/b.sock"), "help": True, "word": "ping"}),
        ("PAST-stack before_s=2", {"word": "PAST-stack", "rest": ["before_s=2"]}),
        ("logs -n 5 -f --json hub", {"word": "logs", "rest": ["-n", "5", "-f", "hub"], "json": True}),
        ("set night.x -5 --save", {"word": "set", "rest": ["night.x", "-5", "--save"]}),
        ("set night.x=-5", {"word": "set", "rest": ["night.x=-5"]}),
        ("archive trial --since 2h --json", {"word": "archive", "rest": ["trial", "--since", "2h"], "json": True}),
        ("archive trial --since=2h", {"word": "archive", "rest": ["trial", "--since=2h"]}),
        ("save --js --label x", {"word": "save", "rest": ["--js", "--label", "x"]}),
        ("top --once --interval 2", {"word": "top", "rest": ["--once", "--interval", "2"]}),
        ("restart recorder hub", {"word": "restart", "rest": ["recorder", "hub"]}),
        # words with a parser of their own get everything behind them as it stands
        ("--json library list --json --help", {"word": "library", "json": True, "rest": ["list", "--json", "--help"]}),
        ("run --config x.toml --set a.b=c", {"word": "run", "rest": ["--config", "x.toml", "--set", "a.b=c"]}),
        ("--config y.toml run --verbose", {"word": "run", "config": Path("y.toml"), "rest": ["--verbose"]}),
        ("gen-cert --name camera.example", {"word": "gen-cert", "rest": ["--name", "camera.example"]}),
    ],
)
def test_lines_are_taken_apart(line, expected):
    assert read(line.split()) == Options(**{"config": CONFIG, **expected})


def test_words_with_spaces_stay_whole():
    words = ["set", "recorder.overlay.text", "roof, --json north", "--json"]
    assert read(words) == Options(config=CONFIG, word="set", rest=words[1:3], json=True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--bogus", "unknown option --bogus; see: shmcam --help"),
        ("--bogus=3 save", "unknown option --bogus=3; see: shmcam --help"),
        ("--js save", "unknown option --js; see: shmcam --help"),
        ("-f logs", "unknown option -f; see: shmcam --help"),
        ("-5 save", "unknown option -5; see: shmcam --help"),
        ("- save", "unknown option -; see: shmcam --help"),
        ("save --config", "--config needs a value"),
        ("--socket= ping", "--socket needs a value"),
        ("ping --timeout=", "--timeout needs a value"),
        ("--json=1 ping", "--json takes no value"),
        ("--timeout soon ping", "--timeout soon: expected seconds"),
        ("ping --timeout -1", "--timeout -1: expected seconds above 0"),
        ("ping --timeout nan", "--timeout nan: expected seconds above 0"),
    ],
)
def test_what_cannot_be_understood_is_said_in_plain_words(line, said, capsys):
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        read(line.split())
    assert main(line.split()) == 2
    assert capsys.readouterr() == ("", f"shmcam: {said}\n")


@pytest.mark.parametrize("word", [*summaries(), *(word for row in COMMANDS for word in row.words), *JSON_WORDS])
def test_every_word_has_its_help_and_none_shows_python(word, capsys):
    """In any spelling; words with an argparse parser of their own print that one's."""
    if word in {*ELSEWHERE, "run", "pipe", "top", "dump-ring", "timelapse"}:  # argparse ends the process after its help
        with pytest.raises(SystemExit, match="0"):
            main([word, "--help"])
        text = capsys.readouterr().out
    else:
        assert main([word, "--help"]) == 0
        text = capsys.readouterr().out
        assert text == help_of(word) + "\n" == WordParser(word).format_help()
        if find(word) and word not in LOCAL:
            spelled = word.upper().replace("_", "-")
            assert main(["-h", spelled]) == 0
            assert capsys.readouterr().out == text
    assert not re.search(
        r"CONFIG\b|Returns:|Raises|SOCKET\b|TIMEOUT|PREFIX|INTERVAL|STREAM\b|SINCE|int value|float|Path\(|None|==",
        text.replace("-CONNECT", ""),
    )


def test_every_word_is_in_the_overview():
    text = WordParser().format_help()
    for word in (*LOCAL.values(), *ELSEWHERE.values()):
        assert word.usage in text
        assert word.help in text
    for word in SUPERVISOR:
        assert f"  {word} [PROGRAM …]" in text


@pytest.mark.parametrize(
    "words", [["library", "show", "x"], ["library", "list", "--limit", "x"], ["gen-cert", "--days", "x"]]
)
def test_whole_numbers_are_asked_for_in_plain_words(words, capsys):
    build = {"library": library.build_parser, "gen-cert": build_certificate_parser}[words[0]]
    with pytest.raises(SystemExit, match="2"):
        build().parse_args(words[1:])
    assert "expected a whole number, got 'x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import shmcam.cli.main as cli; cli.read(['ping']); import shmcam.cli.send", "shtab"),
        *(
            (f"import {process}.__main__", "shtab shmcam.cli")
            for process in ("capture", "analyzer", "exporter", "recorder", "streamer", "shmcam.hub", "shmcam.watchdog")
        ),
    ],
)
def test_only_the_completion_loads_shtab_and_only_the_command_line_its_parser(program, absent):
    code = f"import sys; {program}; print([name for name in {absent.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dump-ring cam0 --last -1", "--last -1: must be 1 or more"),
        ("gen-cert --days 99999999", "--days 99999999: must be 1 to 36500"),
        ("gen-cert --name a,b", "--name a,b: must be a host name of A-Z a-z 0-9"),
        ("gen-cert --name küche.local", "(others as xn--…), or an address"),
        ("console --plian", "console: '--plian' is too much; usage: console [--plain]"),
        ("slave now", "slave: 'now' is too much; usage: slave [--start]; it has: --silent, --start"),
        ("view --full", "view: '--full' is too much; usage: view [CAMERA …]"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(line, said, capsys):
    """They were ignored, or came to an empty table and to `openssl failed: -----`."""
    words = ["--config", str(SHIPPED), *line.split()]
    try:
        assert main(words) == 2
    except SystemExit as end:  # argparse's
        assert end.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("line", ["top --interval x", "dump-ring cam0 --last x", "timelapse --fps x"])
def test_numbers_are_asked_for_in_plain_words(line, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--config", str(SHIPPED), *line.split()])
    assert "invalid number value: 'x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["--config a.toml --set a.b=1 --json list x", "list x --config a.toml --json --set a.b=1"]
)
def test_shared_options_of_the_library_stand_before_or_behind_its_word(line):
    options = library.build_parser().parse_args(line.split())
    assert (str(options.config), options.set, options.json, options.words) == ("a.toml", ["a.b=1"], True, ["x"])
    assert library.build_parser().parse_args(["list"]).json is False
