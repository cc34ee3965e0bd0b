"""Writes docs/config.md: every key of config.toml from its declaration (`python -m shmcam.config.reference_page`)."""

from __future__ import annotations

import sys

from shmcam.config.schema import Key, keys_of, load_tables
from shmcam.config.toml_file import to_toml

HEAD = """# Every key of config.toml

Made from the declarations by `python -m shmcam.config.reference_page`; a test fails when this page is not current.

`live` keys take effect at once with `set KEY VALUE` (text, JSON, command line or page), `restart` keys when the process
that the reply names is restarted. `file` keys (files, devices, addresses, programs, ports, secrets) change only in
config.toml itself. `overwrite_config` writes what was set into the file and keeps its comments.
Override for one start: `SHMCAM_CAMERA__WIDTH=640`, or `shmcam run --set camera.width=640`.
`[cameras.<name>]` takes the keys of `[camera]`, `[cameras.<name>.night]` those of `[night]`, and so on.
"""


def render_page() -> str:
    """Returns the whole page as Markdown."""
    parts = [HEAD]
    for name, section in load_tables().items():
        parts.append(f"\n## [{name}]\n\n| key | default | must be | | what it does |\n|---|---|---|---|---|\n")
        for key in keys_of(name, section):
            parts.append(_render_row(name, key))
            if key.row is not None:
                parts += [_render_row(name, own) for own in keys_of(f"{key.path}.NAME", key.row)]
    return "".join(parts)


def _render_row(table: str, key: Key) -> str:
    name = key.path.removeprefix(f"{table}.")
    cells = [f"`{name}`", f"`{to_toml(key.default)}`", key.expected, key.apply, key.help]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    sys.stdout.write(render_page())
