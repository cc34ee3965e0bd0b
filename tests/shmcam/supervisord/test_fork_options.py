"""What supervisord does around a fork, when something is wrong at that moment."""

import errno
import os
import signal
from unittest import mock

import pytest

from shmcam.supervisord.fork_options import ForkOptions


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOMEM])
def test_after_a_fork_that_failed_signals_come_in_as_before(error):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with mock.patch.object(os, "fork", side_effect=OSError(error, "")), pytest.raises(OSError, match=str(error)):
            ForkOptions.fork(mock.Mock())
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
