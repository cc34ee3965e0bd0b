"""What holds for every test."""

import os

# As streamer/__init__.py has it; aiohttp reads it at its first import, which may be another package's test.
os.environ.setdefault("AIOHTTP_NOSENDFILE", "1")
