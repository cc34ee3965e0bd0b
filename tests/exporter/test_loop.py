"""What the exporter's loop decides by itself: how long a pastStack waits, when the library is looked at again."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from exporter.disk_monitor import DiskMonitor
from exporter.job_queue import JobQueue
from exporter.loop import MAX_WAIT_S, Exporter, check_disks, find_wait_s, handle_message, submit_due_past_stacks
from exporter.session_log_collector import BYTES_MAX, RunningSession, SessionLogs
from shmcam.config.settings import Settings
from shmcam.control.messages import Archive, Archives, PastStack, RecordingStarted, Reply
from shmcam.library import Catalogue, Entry
from shmcam.library.errors import NotWritable
from shmcam.library.files import SESSION_LOG, SESSION_LOG_HEAD
from shmcam.library.manifest import JOURNAL
from shmcam.runtime.log_tail import LogFollower
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Interval
from tests.machine import until
from tests.mounts import closed

TOML = """
[export]
save_after_s = 0.5
[cameras.cam0.export]
save_after_s = 3.0
[cameras.cam1]
"""
S = 10**9


class Saver:
    """Takes work as Jobs does; what it was handed."""

    waiting = done = failed = refused = 0
    busy_s = 0.0

    def __init__(self) -> None:
        self.work = []

    def submit(self, work, request=None) -> bool:
        self.work.append(work)
        return True


def make_exporter(tmp_path: Path, toml: str = TOML) -> Exporter:
    (tmp_path / "config.toml").write_text(toml)
    settings = Settings.load(tmp_path / "config.toml", environ={})
    pictures = SimpleNamespace(past_stack=lambda _command, _now: Reply())
    control = SimpleNamespace(announce=lambda _event: None)
    disks = DiskMonitor(control.announce, threading.Event())
    return Exporter(settings, control, pictures, None, Saver(), Saver(), disks)  # type: ignore[arg-type]


def test_archives_are_listed_while_another_is_built(tmp_path):
    """The list was a job behind the build, which may take an hour."""
    exporter = make_exporter(tmp_path)
    replies = []
    begun = exporter.settings.paths.archives / "trial" / JOURNAL
    begun.parent.mkdir(parents=True)
    begun.touch()
    with Catalogue.of(exporter.settings) as exporter.catalogue:
        for message in (Archive(name="trial"), Archives(action="list")):
            request = SimpleNamespace(message=message, reply=replies.append)
            handle_message(request, exporter, 100 * S)  # type: ignore[arg-type]
    assert len(exporter.file_jobs.work) == 1
    assert [reply.data for reply in replies] == [{"rows": [], "unfinished": ["trial"]}]


@pytest.mark.parametrize(("camera", "after_s"), [("", 3.0), ("cam0", 3.0), ("cam1", 0.5), ("nobody", 0.5)])
def test_a_past_stack_waits_for_the_time_after_of_its_own_camera(tmp_path, camera, after_s):
    exporter = make_exporter(tmp_path)
    request = SimpleNamespace(message=PastStack(camera=camera), reply=lambda _reply: True)
    handle_message(request, exporter, 100 * S)  # type: ignore[arg-type]
    submit_due_past_stacks(exporter, round((100 + after_s - 0.1) * S))
    assert exporter.ring_jobs.work == []
    submit_due_past_stacks(exporter, round((100 + after_s + 0.1) * S))
    assert len(exporter.ring_jobs.work) == 1


def test_what_waits_for_its_row_gets_it_although_no_look_saw_the_disk_and_the_first_try_fails(tmp_path, monkeypatch):
    """Read-only between two looks, or while an archive delayed the file jobs; then another process held the lock."""

    def locked(_catalogue: Catalogue) -> None:
        raise NotWritable("database is locked")

    exporter, step = make_exporter(tmp_path), 15 * S
    exporter.settings.paths.captures.mkdir(parents=True)
    with Catalogue.of(exporter.settings) as catalogue:
        exporter.catalogue = catalogue
        exporter.disk_monitor = DiskMonitor(lambda _event: None, catalogue.missed)

        def look(number: int) -> str:
            check_disks(exporter, number * step)
            try:
                while exporter.file_jobs.work:
                    exporter.file_jobs.work.pop(0)()
            except NotWritable as problem:
                return str(problem)
            return ""

        path = exporter.settings.paths.captures / "a.npy"
        path.write_bytes(b"a")
        look(1)
        with closed():
            catalogue.add_when_writable(Entry(kind="picture", camera="cam0", path=path, started_utc_ns=0))
        assert exporter.disk_monitor.library_trouble == "" and catalogue.find() == []
        with monkeypatch.context() as patch:
            patch.setattr(Catalogue, "reconcile", locked)
            assert look(2) == "database is locked" and catalogue.find() == []
        assert look(3) == "" and [entry.path for entry in catalogue.find()] == [path]
        assert not catalogue.missed.is_set()


@pytest.mark.parametrize("who", ["nobody", "a process that knew none", "this one"])
def test_a_library_that_was_removed_gets_its_rows_again_whoever_made_it_anew(who, tmp_path):
    """A recorder that had just begun made an empty one: the exporter found a file in its place and missed nothing."""
    exporter = make_exporter(tmp_path)
    exporter.settings.paths.captures.mkdir(parents=True)
    with Catalogue.of(exporter.settings) as catalogue:
        exporter.catalogue = catalogue
        exporter.disk_monitor = DiskMonitor(lambda _event: None, catalogue.missed)

        def add(name: str, by: Catalogue) -> Path:
            path = exporter.settings.paths.captures / name
            path.write_bytes(b"a")
            by.add(Entry(kind="picture", camera="cam0", path=path, started_utc_ns=0))
            return path

        def look(number: int) -> list[Path]:
            check_disks(exporter, number * 15 * S)
            while exporter.file_jobs.work:
                exporter.file_jobs.work.pop(0)()
            return sorted(entry.path for entry in catalogue.find())

        paths = [add("a.npy", catalogue)]
        assert look(1) == paths
        for ending in ("", "-wal", "-shm"):
            (tmp_path / f"{exporter.settings.paths.library}{ending}").unlink(missing_ok=True)
        if who != "nobody":
            with Catalogue.of(exporter.settings) as other:
                paths.append(add("b.npy", other if who != "this one" else catalogue))
        if who == "a process that knew none":
            assert [entry.path for entry in catalogue.find()] == paths[1:], "the open connection is given up"
        assert look(2) == paths
        assert look(3) == paths and not catalogue.missed.is_set()


def test_what_is_wrong_with_folders_and_library_ends_when_it_is_mended(tmp_path):
    exporter, monitor = make_exporter(tmp_path), DiskMonitor(lambda _event: None, threading.Event())
    captures = exporter.settings.paths.captures
    captures.parent.mkdir(parents=True, exist_ok=True)
    captures.touch()
    monitor.check(exporter.settings)
    assert "captures" in monitor.folder_trouble and not monitor.library_trouble
    captures.unlink()
    captures.mkdir()
    with closed():
        monitor.check(exporter.settings)
        assert monitor.library_trouble and not monitor.folder_trouble
    monitor.check(exporter.settings)
    assert (monitor.folder_trouble, monitor.library_trouble) == ("", "")


@pytest.mark.parametrize("kind", [av.error.ExternalError, av.error.InvalidDataError, av.error.ArgumentError])
def test_an_encoder_that_refuses_is_an_answer_and_no_bug(kind):
    """Some of FFmpeg's errors are ValueErrors, too, which are what a caller did wrong."""

    def refused() -> Reply:
        raise kind(-542398533, "Generic error in an external library")

    stop, answers = Stop(), []
    jobs = JobQueue("trial", 1, stop)
    jobs.submit(refused, SimpleNamespace(reply=answers.append))
    with jobs.thread:
        until(lambda: answers, 10, "answer")
    assert answers[0].status == "not_saved" and "external library" in answers[0].text and jobs.failed == 1


def test_a_wrong_command_is_no_failed_job():
    """`failed` in status and metrics counted each camera that somebody mistyped."""

    def refuse() -> Reply:
        raise ValueError("no camera 'nocam'; cameras: cam0")

    answers, jobs = [], JobQueue("trial", 1, Stop())
    with jobs.thread:
        jobs.submit(refuse, SimpleNamespace(reply=answers.append))
        until(lambda: answers, 10, "answer")
    assert answers[0].status == "bad_arguments" and (jobs.done, jobs.failed) == (0, 0)


def test_a_full_queue_answers_at_once_and_is_counted_and_a_stop_answers_what_waits():
    stop, answers, done = Stop(), [], []
    jobs = JobQueue("trial", 2, stop)
    request = SimpleNamespace(reply=answers.append)
    took = [jobs.submit(lambda: done.append("job") or Reply(), request) for _ in range(3)]
    assert took == [True, True, False] and (jobs.waiting, jobs.refused) == (2, 1)
    [busy] = answers
    assert (busy.status, busy.text) == ("busy", "ERROR: busy: 2 commands are waiting to be carried out")
    assert not jobs.submit(Reply) and jobs.refused == 2, "one that nobody waits for is counted, too"
    stop.request()
    with jobs.thread:
        until(lambda: len(answers) == 3, 10, "answers")
    assert [answer.status for answer in answers[1:]] == ["stopping"] * 2 and not done and jobs.failed == 2


def test_a_job_that_meets_a_bug_is_answered_and_so_is_what_waits_behind_it(caplog):
    def meet_a_bug() -> Reply:
        raise ZeroDivisionError("a bug")

    stop, answers = Stop(), []
    jobs = JobQueue("trial", 2, stop)
    for work in (meet_a_bug, Reply):
        jobs.submit(work, SimpleNamespace(reply=answers.append))
    with jobs.thread:
        until(lambda: len(answers) == 2, 10, "answers")
    assert [answer.status for answer in answers] == ["failed", "stopping"]
    assert stop.failed and "thread trial broke" in caplog.text and "ZeroDivisionError: a bug" in caplog.text


def test_a_stop_ends_the_wait_for_a_job_at_once(monkeypatch):
    monkeypatch.setattr("exporter.job_queue.WAIT_S", 3600.0)
    jobs, replies = JobQueue("trial", 1, Stop()), []
    with jobs.thread:
        jobs.submit(lambda: Reply(text="done"), SimpleNamespace(reply=replies.append))
        until(lambda: replies)
    assert jobs.thread.join(0) and jobs.done == 1


def test_the_loop_sleeps_until_something_is_due():
    now, timer = 10_000_000_000, Interval()
    idle = SimpleNamespace(delayed=[], auto_save_timers={"cam0": Interval()})
    assert find_wait_s(idle, now) == MAX_WAIT_S
    timer.take_due(now, 2.0)
    saving = SimpleNamespace(delayed=[], auto_save_timers={"cam0": timer})
    assert find_wait_s(saving, now + 1_900_000_000) == pytest.approx(0.1)
    late = SimpleNamespace(delayed=[(now - 1, None, None)], auto_save_timers={"cam0": timer})
    assert find_wait_s(late, now) == 0.0


def test_the_log_of_a_session_whose_recorder_was_killed_ends_with_the_camera_s_next_one(tmp_path):
    """Nobody says any more that it has stopped: every line went into its log, too, until that was full."""
    logs, folders = SessionLogs(tmp_path, Stop()), [tmp_path / f"session_2026010{day}_000000" for day in (1, 2)]
    for folder in folders:
        folder.mkdir()
        logs.note(RecordingStarted(camera="cam0", path=str(folder / "cam0_1.mp4")))
        logs._take_events()
    first, second = (logs._sessions[folder] for folder in folders)
    assert first.ended_s and not first.cameras and not second.ended_s and second.cameras == {"cam0"}


def test_a_session_log_goes_on_after_its_disk_refused_and_after_its_folder_was_removed(tmp_path, caplog):
    """One refusal ended it for the whole session, which may last for weeks."""
    logs, folder = SessionLogs(tmp_path, Stop()), tmp_path / "session_20260101_000000"
    session = RunningSession(LogFollower(tmp_path, ""))
    folder.mkdir()
    logs._append(folder, session, ["one"])
    shutil.rmtree(folder)
    for lines in (["two", "three"], ["four"]):
        logs._append(folder, session, lines)
    folder.mkdir()
    logs._append(folder, session, ["five"])
    logs._append(folder, session, ["six"])
    missing = "session.log: 3 lines are missing here, they could not be written"
    assert (folder / SESSION_LOG).read_text().splitlines() == [SESSION_LOG_HEAD, missing, "five", "six"]
    assert caplog.text.count("session.log cannot be written") == 1
    session.bytes = BYTES_MAX - 3
    logs._append(folder, session, ["seven"])
    logs._append(folder, session, ["eight"])
    assert (folder / SESSION_LOG).read_text().splitlines()[-1].startswith("session.log ends here")
