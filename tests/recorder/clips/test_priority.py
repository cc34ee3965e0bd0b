"""The recorder's threads that can wait do."""

import os
import threading

from recorder.clips.writer import FINISHING, LAST, WRITING, give_way


def test_a_thread_gives_way_to_those_it_came_from():
    own, seen = os.getpriority(os.PRIO_PROCESS, 0), []

    def work(steps: int) -> None:
        give_way(steps)
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    for steps in (WRITING, FINISHING, 100):
        thread = threading.Thread(target=work, args=(steps,))
        thread.start()
        thread.join()
    assert seen == [min(LAST, own + WRITING), min(LAST, own + FINISHING), LAST]
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
