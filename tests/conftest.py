"""What holds for every test."""

import os
import signal

# As streamer/__init__.py has it; aiohttp reads it at its first import, which may be another package's test.
os.environ.setdefault("AIOHTTP_NOSENDFILE", "1")

# A shell starts background jobs (`make test &`, nohup, some CI runners) with SIGINT ignored, and programs inherit that
# through exec: the programs under test would then never see the Ctrl-C that the tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `timeout` and CI runners end a run with SIGTERM: the running test then still takes its processes and segments with it.
signal.signal(signal.SIGTERM, signal.default_int_handler)
