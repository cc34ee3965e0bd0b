"""What memory the programs keep that they need no more."""

import os
import platform
import subprocess
import sys

import pytest

from shmcam.supervisord.memory import ALLOCATOR

FREE = """
import ctypes
import sys
from shmcam.supervisord.memory import limit_allocator

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def read_anonymous_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

def allocate(size):
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    ctypes.memset(block, 1, size)
    return block

if sys.argv[1] == "limited":
    limit_allocator()
libc.free(allocate(16 << 20))
before_kb = read_anonymous_kb()
block = allocate(8 << 20)
allocate(1000)  # what comes behind it, and stays
libc.free(block)
print(read_anonymous_kb() - before_kb)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_large_blocks_are_given_back_as_soon_as_they_are_freed():
    """A recorder on a busy machine opened an encoder of another number of threads every few seconds: 45 MB more."""

    def kept_kb(how: str) -> int:
        environ = {name: value for name, value in os.environ.items() if name not in {row[1] for row in ALLOCATOR}}
        command = [sys.executable, "-c", FREE, how]
        return int(subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout)

    assert kept_kb("limited") < 1000 < 8000 < kept_kb("as glibc does it")
