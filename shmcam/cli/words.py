"""The words of `shmcam` that are not commands of the control socket, and its overview."""

from __future__ import annotations

from dataclasses import dataclass

from shmcam.control.command_table import GROUPS


@dataclass(frozen=True, slots=True)
class Word:
    """One word: where its code is, and what it does."""

    module: str
    usage: str
    help: str


LOCAL: dict[str, Word] = {
    "run": Word("shmcam.cli.run:run", "run [--set TABLE.KEY=VALUE]", "start everything in the foreground"),
    "console": Word("shmcam.cli.console:main", "console [--plain]", "full-screen view; keys r, s, q"),
    "slave": Word("shmcam.cli.slave:main", "slave [--start]", "JSON on stdin and stdout for a master program"),
    "subscribe": Word("shmcam.cli.follow:events", "subscribe [TOPIC …]", "print events until Ctrl-C"),
    "logs": Word("shmcam.cli.follow:logs", "logs [-f] [-n LINES] [PROCESS]", "log lines, merged by time"),
    "shortstream": Word("shmcam.cli.shortstream:main", "shortstream [N] --out DIR", "save N frames as JPEG files"),
    "cameras": Word("shmcam.cli.rings:main", "cameras", "every camera of this machine, and what is delivered"),
    "doctor": Word("shmcam.cli.doctor.doctor:main", "doctor", "what is missing or wrong, and what to type"),
    "top": Word("shmcam.cli.rings:top", "top [--once]", "live view of the rings: rates, readers, lag, drops"),
    "dump-ring": Word("shmcam.cli.rings:dump", "dump-ring CAMERA", "a ring's frames as files, also after a crash"),
    "completion": Word("shmcam.cli.completion:main", "completion bash|zsh|fish", "print a completion script"),
}
"""What the command line does itself; "module:function" takes Options and returns the exit code."""

ELSEWHERE: dict[str, Word] = {
    "library": Word("shmcam.cli.library", "library list|show|protect|delete|check|rebuild", "what has been saved"),
    "gen-cert": Word("shmcam.cli.certificate", "gen-cert …", "make a TLS certificate for the web page"),
}
"""Programs of other packages, started with `python -m` so that this package imports none of them."""

SUPERVISOR: dict[str, str] = {
    "start": "start programs (default: all)",
    "stop": "stop programs (default: all)",
    "restart": "restart programs (default: all)",
    "update": "take over edits of supervisord.conf and new cameras",
    "processes": "supervisorctl status",
}
"""Passed on to supervisorctl with this instance's configuration."""


def overview() -> str:
    """Return the text of `shmcam --help`."""
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
