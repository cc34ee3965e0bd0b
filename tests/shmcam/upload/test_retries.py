"""Which rows go next, and when one that failed is tried again."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shmcam.library import Entry
from shmcam.upload.retries import BATCH_BYTES, BATCH_ROWS, FAILED_MAX, FIRST_S, LIMIT_S, Retries, find_folder

CAPTURES, RECORDINGS = Path("/s/captures"), Path("/s/recordings")
FOLDERS = (CAPTURES, RECORDINGS)


def entry(number: int, folder: Path = CAPTURES, size: int = 1000) -> Entry:
    return Entry(kind="clip", camera="cam0", path=folder / f"{number}.mp4", started_utc_ns=0, bytes=size, id=number)


def numbers(retries: Retries, waiting: list[Entry]) -> list[int]:
    chosen = retries.choose_batch(waiting, FOLDERS)
    return [one.id for one in chosen[1]] if chosen else []


def test_the_oldest_goes_first_with_others_of_its_folder():
    waiting = [entry(1, RECORDINGS), entry(2), entry(3, RECORDINGS)]
    assert Retries().choose_batch(waiting, FOLDERS) == (RECORDINGS, [waiting[0], waiting[2]])
    assert Retries().choose_batch([], FOLDERS) is None
    assert Retries().choose_batch([entry(1, Path("/elsewhere"))], FOLDERS) is None


def test_a_batch_has_its_limits_and_a_huge_file_goes_all_the_same():
    assert len(numbers(Retries(), [entry(n) for n in range(1, 500)])) == BATCH_ROWS
    assert numbers(Retries(), [entry(1, size=2 * BATCH_BYTES), entry(2)]) == [1]
    assert numbers(Retries(), [entry(1, size=BATCH_BYTES), entry(2, size=1)]) == [1]


def test_a_row_that_failed_goes_alone_and_delays_no_other():
    retries = Retries()
    retries.note_failure(1, "refused", 0.0)
    assert retries.find_delayed(0.0) == [1] and retries.find_delayed(FIRST_S) == []
    assert numbers(retries, [entry(1), entry(2)]) == [1]
    assert numbers(retries, [entry(0), entry(1), entry(2)]) == [0, 2]
    retries.forget(1)
    assert numbers(retries, [entry(1), entry(2)]) == [1, 2]


@given(st.integers(1, 200))
def test_the_delay_doubles_up_to_an_hour(failures):
    retries = Retries()
    for _ in range(failures):
        retries.note_failure(7, "refused", 1000.0)
    assert retries.rows[7].due_s - 1000.0 == min(FIRST_S * 2 ** (failures - 1), LIMIT_S)


def test_a_store_that_refuses_everything_fills_no_memory():
    retries = Retries()
    for number in range(2 * FAILED_MAX):
        retries.note_failure(number, "refused", float(number))
    assert len(retries.rows) == FAILED_MAX and min(retries.rows) == FAILED_MAX


def test_the_innermost_folder_holds_a_file():
    nested = (Path("/s"), Path("/s/captures"))
    assert find_folder(Path("/s/captures/a"), nested) == Path("/s/captures")
    assert find_folder(Path("/s/b"), nested) == Path("/s") and find_folder(Path("/t"), nested) is None
