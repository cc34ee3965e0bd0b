"""The words of `shmcam` that are not commands of the control socket, and the texts of `shmcam --help`.

`--help` of a command of the control socket comes from `shmcam.control.help`.
"""

from __future__ import annotations

from msgspec import Struct


class WordOption(Struct, frozen=True):
    """An option of one word, for completion; the word's code reads it."""

    names: tuple[str, ...]
    help: str
    value: str = ""
    """The name of its value in help texts; empty: a switch. DIR is completed with folders."""


class Word(Struct, frozen=True):
    """A word: its code, its line in the overview, its own help."""

    module: str
    usage: str
    help: str
    details: str = ""
    """The text of `shmcam WORD --help`; empty: that of the command, or the word's code prints it."""
    options: tuple[WordOption, ...] = ()
    parser: str = ""
    """The "module:function" that builds its argparse parser: such a word reads all its options itself."""


LOCAL: dict[str, Word] = {
    "run": Word(
        "shmcam.cli.run.command:run",
        "run [--set TABLE.KEY=VALUE] [--mode slave] …",
        "start everything in the foreground",
        parser="shmcam.cli.run.command:build_parser",
    ),
    "import": Word(
        "shmcam.cli.config_import.command:main",
        "import FILE [--output FILE] [--force]",
        "write config.toml from a former program's config.json or config.txt",
        "shmcam import FILE [--output config.toml] [--force]: write a config.toml from the config.json or config.txt "
        "of a\nformer program, and print what became of each key; an existing file is replaced only with --force: its "
        "absolute folders,\nowner and mode stay",
        (
            WordOption(("--output",), "file to write instead of config.toml", "FILE"),
            WordOption(("--force",), "replace an existing file"),
        ),
    ),
    "console": Word(
        "shmcam.cli.console.loop:main",
        "console [--plain]",
        "full-screen view; keys r, s, q",
        "`shmcam console`: status, picture and log of a running service on one screen; keys r, s, q.\n\n"
        "On a terminal it is full screen; with --plain, or when stdin is no terminal, it reads r, s, q + Enter line by "
        "line.",
        (
            WordOption(("--plain",), "read keys line by line"),
            WordOption(("--start",), "start the whole service first, stop it at the end"),
        ),
    ),
    "view": Word(
        "shmcam.cli.console.desktop_window:main",
        "view [CAMERA …]",
        "a window with the live pictures; keys r, s, q",
        "`shmcam view [CAMERA …]`: a window on the desktop with the live picture of each camera (all, if none is "
        "named);\nkeys r (record), s (snapshot), q (quit).",
        (WordOption(("--start",), "start the whole service first, stop it at the end"),),
    ),
    "slave": Word(
        "shmcam.cli.slave:main",
        "slave [--start]",
        "JSON on stdin and stdout for a master program",
        "`shmcam slave`: the JSON dialect on stdin and stdout, for a master program that started us.\n\n"
        'One object a line in, one object a line out; `{"command": "quit"}` or the end of stdin ends the session. '
        "With --start\nthe whole service is started first, and stopped again at the end; with --silent nothing is "
        "written before the first answer. Nothing but JSON is ever written to stdout.",
        (
            WordOption(("--start",), "start the whole service first"),
            WordOption(("--silent",), "write no status ready at the start"),
        ),
    ),
    "subscribe": Word(
        "shmcam.cli.follow:print_events",
        "subscribe [TOPIC …]",
        "print events until Ctrl-C",
        "shmcam subscribe [TOPIC …]: print events until Ctrl-C; without topics: all\nexample: shmcam subscribe night",
    ),
    "logs": Word(
        "shmcam.cli.follow:print_logs",
        "logs [-f] [-n LINES] [PROCESS]",
        "log lines, merged by time",
        "shmcam logs [-f] [-n LINES] [PROCESS]: log lines, merged by time; -f: and what follows",
        (
            WordOption(("-f", "--follow"), "also print what follows"),
            WordOption(("-n", "--lines"), "number of lines", "LINES"),
        ),
    ),
    "shortstream": Word(
        "shmcam.cli.shortstream:main",
        "shortstream [N] [live] --out DIR",
        "save N frames as JPEG files",
        "shmcam shortstream [N] [live] --out DIR [--camera cam0]: save the last N frames, or with `live` the next N,\n"
        "as DIR/frame_0001.jpg …",
        (
            WordOption(("--out",), "folder of the files", "DIR"),
            WordOption(("--camera",), "camera, such as cam0", "NAME"),
        ),
    ),
    "cameras": Word("shmcam.cli.rings:list_cameras", "cameras", "every camera of this machine, and what is delivered"),
    "doctor": Word(
        "shmcam.cli.doctor.doctor:main",
        "doctor",
        "what is missing or wrong, and what to type",
        "`shmcam doctor`: what is missing or wrong on this machine, each with the line to type. "
        "Exit code 1 if anything is.",
    ),
    "sizes": Word(
        "shmcam.cli.doctor.memory_sizes:main",
        "sizes",
        "memory that this configuration takes, and the boards that have it",
        "`shmcam sizes`: the memory of each program and ring of this configuration, their sum, what this machine has, "
        "and\nwhich boards can carry it. Exit code 1 if it does not fit here: the rings get smaller then.",
    ),
    "top": Word(
        "shmcam.cli.rings:show_rings",
        "top [--once]",
        "live view of the rings: rates, readers, lag, drops",
        options=(WordOption(("--once",), "one table, then stop"),),
    ),
    "dump-ring": Word("shmcam.cli.rings:dump_ring", "dump-ring CAMERA", "a ring's frames as files, also after a crash"),
    "pipe": Word(
        "shmcam.cli.pipe.command:main",
        "pipe CAMERA [--format mjpeg] [--fps 10] …",
        "pictures or video on stdout, for ffmpeg, GStreamer …",
        parser="shmcam.cli.pipe.command:build_parser",
    ),
    "hooks": Word(
        "shmcam.cli.hooks_command:main",
        "hooks [test NAME]",
        "what is done upon events; carry one out now",
        "shmcam hooks: list the hooks of config.toml.\n"
        "shmcam hooks test NAME: carry one out now with a made-up event, and print what came of it.",
    ),
    "completion": Word(
        "shmcam.cli.completion:main",
        "completion bash|zsh|fish",
        "print a completion script",
        "shmcam completion bash|zsh|fish\n"
        "  bash: shmcam completion bash > ~/.local/share/bash-completion/completions/shmcam\n"
        "  zsh:  shmcam completion zsh > ~/.zfunc/_shmcam   (with ~/.zfunc in fpath)\n"
        "  fish: shmcam completion fish > ~/.config/fish/completions/shmcam.fish",
    ),
}
"""The words that the command line carries out itself; "module:function" takes Options and returns the exit code."""

ELSEWHERE: dict[str, Word] = {
    "library": Word(
        "shmcam.cli.library:main",
        "library list|timeline|show|protect|delete|clean|check|rebuild",
        "what has been saved",
        parser="shmcam.cli.library:build_parser",
    ),
    "fleet": Word(
        "shmcam.mqtt.fleet.__main__:main",
        "fleet list|run|snapshot|record|forget",
        "all devices at one MQTT broker",
        parser="shmcam.mqtt.fleet.__main__:build_parser",
    ),
    "gen-cert": Word(
        "shmcam.cli.certificate:main",
        "gen-cert …",
        "make a TLS certificate for the web page",
        parser="shmcam.cli.certificate:build_parser",
    ),
}
"""Words with options of their own; "module:function" takes everything behind the word and returns the exit code."""

SUPERVISOR: dict[str, str] = {
    "start": "start programs (default: all)",
    "stop": "stop programs (default: all)",
    "restart": "restart programs (default: all, and supervisord with the code and supervisord.conf of now)",
    "update": "take over edits of supervisord.conf and new cameras",
    "processes": "supervisorctl status; exit code 1 if a program does not run",
}
"""Carried out by supervisorctl with this instance's configuration."""


def find_word(word: str) -> Word | None:
    """Returns a word of LOCAL or ELSEWHERE; None: it is none of these."""
    return LOCAL.get(word) or ELSEWHERE.get(word)


def summaries() -> dict[str, str]:
    """Returns every word with its one-line help, in alphabetical order."""
    from shmcam.control.command_table import COMMANDS

    texts = {row.words[0]: row.help for row in COMMANDS}
    texts |= {name: word.help for name, word in (LOCAL | ELSEWHERE).items()}
    return dict(sorted((texts | SUPERVISOR).items()))


def help_of(word: str) -> str:
    """Returns the text of `shmcam WORD --help`; "" if the code of the word prints it. No word: `shmcam --help`."""
    if not word:
        return overview()
    if word in SUPERVISOR:
        return f"shmcam {word} [PROGRAM …]: {SUPERVISOR[word]}"
    local = find_word(word)
    if local and local.details:
        return local.details
    from shmcam.control.command_table import find
    from shmcam.control.help import explain_row

    command = find(word)
    return "\n".join(explain_row(command[0])) if command and not (local and local.parser) else ""


def overview() -> str:
    """Returns the text of `shmcam --help`."""
    from shmcam.control.command_table import GROUPS

    rows = [(word.usage, word.help) for word in (*LOCAL.values(), *ELSEWHERE.values())]
    rows += [(f"{word} [PROGRAM …]", text) for word, text in SUPERVISOR.items()]
    local = "\n".join(f"  {usage:<44} {text}" for usage, text in rows)
    taken = set(LOCAL)
    groups = "\n".join(
        f"\n{name}:\n" + "\n".join(f"  {row.usage:<44} {row.help}" for row in rows_of if row.words[0] not in taken)
        for name, rows_of in GROUPS.items()
    )
    return (
        "shmcam: one camera, many programs.\n\n"
        "usage: shmcam [--config FILE] [--socket PATH] [--json] [--timeout S] WORD …\n\n"
        f"the service itself:\n{local}\n{groups}\n\n"
        "shmcam WORD --help explains one. The same words work over the socket:\n"
        "  echo save | socat -t10 - UNIX-CONNECT:run/control.sock\n\n"
        "exit codes: 0 done, 1 refused or failed, 2 wrong usage, 69 no service there, 75 no answer in time,\n"
        "            78 config.toml is wrong, 130 interrupted\n"
        "files:      config.toml (--config or SHMCAM_CONFIG; else ./config.toml, /etc/shmcam/config.toml)\n"
        "more:       docs/control.md, docs/commands.md, docs/config.md"
    )
