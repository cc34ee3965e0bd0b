"""Runs supervisord as `shmcam run` does; takes the options of supervisord(1).

After `supervisorctl reload` this process executes itself anew, so that its programs are forked from the present code.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import suppress

from supervisor import supervisord
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.states import SupervisorStates

from shmcam.config.settings import Settings, SettingsError
from shmcam.runtime.startup import find_config
from shmcam.supervisord.fork_options import ForkOptions
from shmcam.supervisord.memory import limit_allocator, refuse_huge_pages
from shmcam.supervisord.preload import preload
from shmcam.supervisord.supervisor_loop import PromptSupervisor


def main() -> int:
    """Runs until supervisord is asked to end. Returns: the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while modules are loaded, before supervisord's own handlers
    limit_allocator()
    refuse_huge_pages(refuse=True)
    choose_temporary_folder()
    options = ForkOptions()
    options.realize(sys.argv[1:], doc=supervisord.__doc__)
    options.first, options.test = True, False
    options.preloaded = preload(options.commands())
    from shmcam.supervisord.leftover_rings import unlink_leftover_rings  # loads numpy: after preload

    with suppress(ExitNow):
        PromptSupervisor(options).main()
    options.close_httpservers()
    options.close_logger()
    if options.mood == SupervisorStates.RESTARTING:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - argv list, no shell
    with suppress(SettingsError):
        unlink_leftover_rings(Settings.load(find_config()))
    return 0


def choose_temporary_folder() -> None:
    """Takes /dev/shm for temporary files if no disk has room for one: supervisord asks for a folder at its start."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = "/dev/shm"  # noqa: S108 - files in it are unnamed: hooks' and upload's


if __name__ == "__main__":
    sys.exit(main())
