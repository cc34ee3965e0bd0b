"""The recorder's threads that can wait do."""

import os
import threading

from recorder.clips.writer import FINISHER_STEPS, MAX_NICENESS, WRITER_STEPS, lower_priority


def test_a_thread_gives_way_to_those_it_came_from():
    own, seen = os.getpriority(os.PRIO_PROCESS, 0), []

    def work(steps: int) -> None:
        lower_priority(steps)
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    for steps in (WRITER_STEPS, FINISHER_STEPS, 100):
        thread = threading.Thread(target=work, args=(steps,))
        thread.start()
        thread.join()
    assert seen == [min(MAX_NICENESS, own + WRITER_STEPS), min(MAX_NICENESS, own + FINISHER_STEPS), MAX_NICENESS]
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
