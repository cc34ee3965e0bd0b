"""The analyzer's word on a frame, and its absence."""

from shmcam.runtime.clock import now_ns
from streamer.pictures import scores
from streamer.pictures.scores import ScoreReader


class Word:
    def __init__(self, age_ns: int = 0) -> None:
        self.captured_ns = now_ns() - age_ns


class Scores:
    """Counts how often it is asked."""

    def __init__(self, word: Word | None) -> None:
        self.word, self.asked = word, 0

    def latest(self) -> Word | None:
        self.asked += 1
        return self.word


def test_scores_that_are_not_there_are_not_looked_for_with_every_frame(monkeypatch):
    ring, clock = Scores(None), [now_ns()]
    monkeypatch.setattr(scores, "now_ns", lambda: clock[0])
    read = ScoreReader(ring).read
    assert [read() for _ in range(30)] == [None] * 30
    assert ring.asked == 1
    ring.word = Word()
    clock[0] += scores.RETRY_NS
    assert read() is read() is ring.word
    assert ring.asked == 3


def test_an_old_word_is_not_passed_on():
    assert ScoreReader(Scores(Word(scores.FRESH_NS + 1))).read() is None
