"""`shmcam completion bash|zsh|fish`: scripts made from the table of commands and the words of the command line."""

from __future__ import annotations

import dataclasses

from shmcam.cli.options import Options, UsageError
from shmcam.cli.words import ELSEWHERE, LOCAL, SUPERVISOR
from shmcam.control.command_table import COMMANDS, CommandRow
from shmcam.control.messages import EVENTS, TOPIC_GROUPS, choices

FORMATS = ("jpg", "png", "npy", "tiff")
OPTIONS = ("--config", "--socket", "--json", "--timeout", "--help")
PROGRAMS = ("hub", "capture", "analyzer", "recorder", "exporter", "streamer", "watchdog")

FISH_VERB = """function __shmcam_verb
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case --config --socket --timeout
                set skip 1
            case '-*'
            case '*'
                echo $word
                return 0
        end
    end
    return 1
end"""
"""The word of the line so far, options and their values passed over."""


def words() -> dict[str, str]:
    """Return every word with its one-line help."""
    found = {row.words[0]: row.help for row in COMMANDS}
    found |= {name: word.help for name, word in {**LOCAL, **ELSEWHERE}.items()}
    return dict(sorted((found | SUPERVISOR).items()))


def arguments() -> dict[str, tuple[str, ...]]:
    """Return what may follow each word."""
    found = {row.words[0]: _of(row) for row in COMMANDS}
    programs = dict.fromkeys((*SUPERVISOR, "logs"), PROGRAMS)
    topics = (*TOPIC_GROUPS, *sorted(EVENTS))
    own = {
        "completion": ("bash", "zsh", "fish"),
        "console": ("--plain",),
        "slave": ("--start",),
        "shortstream": ("--out",),
    }
    library = {
        "library": ("list", "show", "protect", "delete", "check", "rebuild"),
        "subscribe": topics,
        "unsubscribe": topics,
    }
    return found | programs | own | library | {"help": tuple(words()), "set": _keys(), "get": _keys()}


def _of(row: CommandRow) -> tuple[str, ...]:
    found: list[str] = []
    for given in dataclasses.fields(row.message):
        if given.name in row.takes:
            found += choices(given).split("|") if choices(given) else []
            found += FORMATS if given.name == "formats" else []
        else:
            found.append(f"{given.name}=")
    return tuple(found)


def _keys() -> tuple[str, ...]:
    from shmcam.config.schema import keys, tables

    return tuple(key.path for name, section in tables().items() for key in keys(name, section))


def main(options: Options) -> int:
    """Print the script of one shell."""
    shells = {"bash": bash, "zsh": zsh, "fish": fish}
    if options.help or len(options.rest) != 1 or options.rest[0] not in shells:
        if not options.help:
            raise UsageError("completion: expected bash, zsh or fish")
        print(
            "shmcam completion bash|zsh|fish\n"
            "  bash: shmcam completion bash > ~/.local/share/bash-completion/completions/shmcam\n"
            "  zsh:  shmcam completion zsh > ~/.zfunc/_shmcam   (with ~/.zfunc in fpath)\n"
            "  fish: shmcam completion fish > ~/.config/fish/completions/shmcam.fish"
        )
        return 0
    print(shells[options.rest[0]](), end="")
    return 0


def bash() -> str:
    """Return the script for bash."""
    cases = "\n".join(f"        {word}) given='{' '.join(given)}' ;;" for word, given in arguments().items() if given)
    return f"""# bash completion of shmcam, made by `shmcam completion bash`
_shmcam() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb= given= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            --config|--socket|--timeout) ((i++)) ;;
            -*|=) ;;
            *) verb=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    case ${{COMP_WORDS[COMP_CWORD-1]}} in
        --config|--socket|--out) COMPREPLY=($(compgen -f -- "$word")); return ;;
    esac
    case $verb in
        '') given='{" ".join((*words(), *OPTIONS))}' ;;
{cases}
    esac
    COMPREPLY=($(compgen -W "$given" -- "$word"))
    [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
}}
complete -F _shmcam shmcam
"""


def zsh() -> str:
    """Return the script for zsh; it works autoloaded from fpath and sourced."""
    described = "\n".join(f"        '{word}:{_plain(text)}'" for word, text in words().items())
    cases = "\n".join(f"        {word}) {_compadd(given)} ;;" for word, given in arguments().items() if given)
    return f"""#compdef shmcam
# zsh completion of shmcam, made by `shmcam completion zsh`
_shmcam() {{
    local verb= i=2
    local -a verbs
    verbs=(
{described}
    )
    while (( i < CURRENT )); do
        case $words[i] in
            --config|--socket|--timeout) (( i += 2 )) ;;
            -*) (( i++ )) ;;
            *) verb=$words[i]; break ;;
        esac
    done
    case $words[CURRENT-1] in
        --config|--socket|--out) _files; return ;;
    esac
    case $verb in
        '') _describe 'command' verbs; compadd -- {" ".join(OPTIONS)} ;;
{cases}
    esac
}}
if [ "$funcstack[1]" = _shmcam ]; then _shmcam "$@"; else compdef _shmcam shmcam; fi
"""


def _compadd(given: tuple[str, ...]) -> str:
    """Offer words; those that end in = without a space behind them."""
    whole = [word for word in given if not word.endswith("=")]
    begun = [word for word in given if word.endswith("=")]
    return "; ".join(
        f"compadd {how}-- {' '.join(offered)}" for how, offered in (("", whole), ("-S '' ", begun)) if offered
    )


def fish() -> str:
    """Return the script for fish."""
    lines = [
        "# fish completion of shmcam, made by `shmcam completion fish`",
        FISH_VERB,
        "complete -c shmcam -f",
        "complete -c shmcam -l config -r -F -d 'config.toml to use'",
        "complete -c shmcam -l socket -r -F -d 'control socket'",
        "complete -c shmcam -l timeout -x -d 'seconds to wait for an answer'",
        "complete -c shmcam -l json -d 'answer as JSON'",
        "complete -c shmcam -l help -d 'explain a word'",
    ]
    lines += [
        f"complete -c shmcam -n 'not __shmcam_verb >/dev/null' -a '{w}' -d '{_plain(text)}'"
        for w, text in words().items()
    ]
    lines += [
        f"complete -c shmcam -n 'contains -- {word} (__shmcam_verb)' -a '{' '.join(given)}'"
        for word, given in arguments().items()
        if given
    ]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Take out what would end the quotes of a shell."""
    return text.replace("'", "’").replace(":", " -")
