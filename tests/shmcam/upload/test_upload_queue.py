"""Which rows go next, and when one that failed is tried again."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shmcam.library import Entry
from shmcam.upload.upload_queue import BATCH_BYTES, BATCH_ROWS, FAILED_MAX, FIRST_S, LIMIT_S, UploadQueue, find_folder

CAPTURES, RECORDINGS = Path("/s/captures"), Path("/s/recordings")
FOLDERS = (CAPTURES, RECORDINGS)


def entry(number: int, folder: Path = CAPTURES, size: int = 1000) -> Entry:
    return Entry(kind="clip", camera="cam0", path=folder / f"{number}.mp4", started_utc_ns=0, bytes=size, id=number)


def numbers(queue: UploadQueue, waiting: list[Entry]) -> list[int]:
    chosen = queue.choose_batch(waiting, FOLDERS)
    return [one.id for one in chosen[1]] if chosen else []


def test_the_oldest_goes_first_with_others_of_its_folder():
    waiting = [entry(1, RECORDINGS), entry(2), entry(3, RECORDINGS)]
    assert UploadQueue().choose_batch(waiting, FOLDERS) == (RECORDINGS, [waiting[0], waiting[2]])
    assert UploadQueue().choose_batch([], FOLDERS) is None
    assert UploadQueue().choose_batch([entry(1, Path("/elsewhere"))], FOLDERS) is None


def test_a_batch_has_its_limits_and_a_huge_file_goes_all_the_same():
    assert len(numbers(UploadQueue(), [entry(n) for n in range(1, 500)])) == BATCH_ROWS
    assert numbers(UploadQueue(), [entry(1, size=2 * BATCH_BYTES), entry(2)]) == [1]
    assert numbers(UploadQueue(), [entry(1, size=BATCH_BYTES), entry(2, size=1)]) == [1]


def test_a_row_that_failed_goes_alone_and_delays_no_other():
    queue = UploadQueue()
    queue.note_failure(1, "refused", 0.0)
    assert queue.find_delayed(0.0) == [1] and queue.find_delayed(FIRST_S) == []
    assert numbers(queue, [entry(1), entry(2)]) == [1]
    assert numbers(queue, [entry(0), entry(1), entry(2)]) == [0, 2]
    queue.forget(1)
    assert numbers(queue, [entry(1), entry(2)]) == [1, 2]


@given(st.integers(1, 200))
def test_the_delay_doubles_up_to_an_hour(failures):
    queue = UploadQueue()
    for _ in range(failures):
        queue.note_failure(7, "refused", 1000.0)
    assert queue.rows[7].due_s - 1000.0 == min(FIRST_S * 2 ** (failures - 1), LIMIT_S)


def test_a_store_that_refuses_everything_fills_no_memory():
    queue = UploadQueue()
    for number in range(2 * FAILED_MAX):
        queue.note_failure(number, "refused", float(number))
    assert len(queue.rows) == FAILED_MAX and min(queue.rows) == FAILED_MAX


def test_the_innermost_folder_holds_a_file():
    nested = (Path("/s"), Path("/s/captures"))
    assert find_folder(Path("/s/captures/a"), nested) == Path("/s/captures")
    assert find_folder(Path("/s/b"), nested) == Path("/s") and find_folder(Path("/t"), nested) is None
