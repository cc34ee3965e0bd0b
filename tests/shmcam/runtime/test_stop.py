"""Stopping: signals reach every waiting thread, and no lock is taken in a handler."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import threading

from shmcam.runtime.stop import Stop

CHILD = """
import threading, sys
from shmcam.runtime.stop import Stop
stop = Stop()
stop.catch_signals()
thread = threading.Thread(target=lambda: stop.wait(60))
thread.start()
print("ready", flush=True)
stop.wait(60)
thread.join(10)
sys.exit(7 if stop.requested and not thread.is_alive() else 1)
"""


def test_a_request_wakes_a_wait_and_stays_requested():
    stop = Stop()
    assert stop.wait(0.0) is False
    threading.Timer(0.05, stop.request).start()
    assert stop.wait(30) is True
    assert stop.wait(30) is True and stop.requested
    assert select.select([stop.fileno()], [], [], 0)[0]


def test_ten_thousand_requests_do_not_block():
    stop = Stop()
    for _ in range(70_000):
        stop.request()
    assert stop.requested


def test_sigterm_and_a_storm_of_them_wake_main_and_worker_threads():
    for storm in (1, 20):
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        for _ in range(storm):
            child.send_signal(signal.SIGTERM)
        # A signal that arrives while the interpreter is already leaving may end it: Python has put the default back.
        assert child.wait(30) in ((7,) if storm == 1 else (7, -signal.SIGTERM))
        child.stdout.close()
