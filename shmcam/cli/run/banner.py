"""The lines that `shmcam run` prints at its start: addresses, and commands to type."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path

from shmcam.cli.run.start_checks import find_port_holder
from shmcam.config.settings import Settings
from shmcam.network.peer_address import is_loopback
from shmcam.runtime.supervisord_programs import TEMPLATE

SECRETS = ("token", "password", "insecure_no_auth")
"""Keys of [http]; an address that other machines can reach needs one of them."""

SOCAT_SPECIAL = re.compile(r"""[\\"'()\[\]{},:!]""")
"""Characters with a meaning in an address of socat(1)."""


def banner_of(settings: Settings, conf: Path) -> str:
    """Returns what `run` prints at its start: addresses, and lines to type, on one screen."""
    scheme = "https" if settings.value("http.tls_cert") else "http"
    bind = str(settings.value("http.bind"))
    host = "127.0.0.1" if bind in ("0.0.0.0", "::", "") else bind  # noqa: S104  (shown, not bound)
    port = settings.value("mjpeg_server.port")
    supervisorctl = "supervisorctl" if conf == TEMPLATE else f"supervisorctl -c {shlex.quote(_shorten(conf))}"
    address = shlex.quote("UNIX-CONNECT:" + SOCAT_SPECIAL.sub(r"\\\g<0>", _shorten(settings.socket_path)))
    taken = find_port_holder(bind, port)
    page = {"page": f"{scheme}://{host}:{port}/", "stream": f"{scheme}://{host}:{port}/stream"}
    if taken:
        page = {"! page": f"not yet: port {port} is taken by {taken}; end that, or set mjpeg_server.port"}
    lines = {
        **page,
        "save": f"echo save | socat -t10 - {address}",
        "record": f"echo record start | socat -t10 - {address}",
        "status": f"{supervisorctl} status",
        "logs": f"tail -f {shlex.quote(_shorten(settings.paths.logs))}/*.log",
        "stop": "Ctrl-C",
    }
    if not is_loopback(bind) and not any(settings.value(f"http.{key}") for key in SECRETS):
        lines["! page"] = f"not served: http.bind = {bind} needs http.token or http.password"
    rows = "\n".join(f"  {name:7} {text}" for name, text in lines.items())
    return f"shmcam  {', '.join(settings.cameras)}  ({settings.path})\n{rows}"


def _shorten(path: Path) -> str:
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
