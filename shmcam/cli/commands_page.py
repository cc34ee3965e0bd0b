"""Writes docs/commands.md from the table of commands: `python -m shmcam.cli.commands_page > docs/commands.md`."""

from __future__ import annotations

from shmcam.cli.local_commands import ELSEWHERE, LOCAL, SUPERVISOR
from shmcam.control.command_table import GROUPS, JSON_WORDS, CommandRow
from shmcam.control.help import SOCAT, describe_fields
from shmcam.control.messages import EVENTS, TOPIC_GROUPS


def write_page() -> str:
    """Returns the whole page."""
    parts = [
        "# Commands",
        "Made from `shmcam/control/command_table.py` by `python -m shmcam.cli.commands_page`; a test keeps "
        "it current. Each works as a "
        f'line (`echo save | {SOCAT}`), as `shmcam save`, and as JSON (`{{"command": "save"}}`). Fields in brackets '
        "may be left out; any field may be given by name (`save formats=jpg,png label=a`). How it all works: "
        "[control.md](control.md).",
    ]
    for group, rows in GROUPS.items():
        parts += [f"## {group}", *map(_write_command, rows)]
    parts += [
        "## Words of JSON masters",
        _write_json_words(),
        "## Events",
        _write_events(),
        "## Words of the command line",
        _write_words(),
    ]
    return "\n\n".join(parts) + "\n"


def _write_command(row: CommandRow) -> str:
    also = f" Also written: {', '.join(f'`{word}`' for word in row.words[1:])}." if len(row.words) > 1 else ""
    each = " Without a camera it goes to all." if row.per_camera else ""
    head = f"### `{row.usage}`\n\n{row.help} Answered by {row.owner}, within {row.timeout_s:.0f} s.{each}{also}\n\n"
    table = "".join(f"| `{name}` | {_cell_of(text)} |\n" for name, text in describe_fields(row))
    table = f"| field | meaning |\n|---|---|\n{table}\n" if table else ""
    return f"{head}{table}Example: `{row.example}`"


def _write_json_words() -> str:
    rows = "".join(
        f"| `{word}` | `{name}`{''.join(f', {k} = {v}' for k, v in preset.items())} |\n"
        for word, (name, preset) in JSON_WORDS.items()
    )
    return f"| `command` | is |\n|---|---|\n{rows}".rstrip()


def _write_events() -> str:
    groups = "".join(
        f"| `{name}` | {', '.join(f'`{event}`' for event in events)} |\n" for name, events in TOPIC_GROUPS.items()
    )
    rows = "".join(f"| `{name}` | {(kind.__doc__ or '').splitlines()[0]} |\n" for name, kind in sorted(EVENTS.items()))
    return f"| topic | events |\n|---|---|\n{groups}\n| event | told when |\n|---|---|\n{rows}".rstrip()


def _write_words() -> str:
    rows = [(word.usage, word.help) for word in (*LOCAL.values(), *ELSEWHERE.values())]
    rows += [(f"{word} [PROGRAM …]", text) for word, text in SUPERVISOR.items()]
    return "| `shmcam …` | does |\n|---|---|\n" + "\n".join(f"| `{_cell_of(usage)}` | {text} |" for usage, text in rows)


def _cell_of(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(write_page(), end="")
