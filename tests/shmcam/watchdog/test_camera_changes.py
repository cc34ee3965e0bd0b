"""A camera added by `supervisorctl update`: hub, exporter and streamer end once, on a full disk, too."""

from types import SimpleNamespace

import pytest

from shmcam.config.settings import Settings
from shmcam.runtime.supervisord import Program
from shmcam.watchdog.camera_changes import MUST_KNOW, CameraGroups
from shmcam.watchdog.watchdog import Watchdog


def program_of(name, group="shmcam"):
    return Program(name, group, "RUNNING", 1, 0.0, 0, "")


ONE = [program_of(name) for name in MUST_KNOW]
TWO = [*ONE, program_of("capture-porch", "porch")]


class Service:
    """A watchdog beside a supervisord that lists `programs` and notes what is ended."""

    def __init__(self, folder):
        self.programs, self.ended, self.file = ONE, [], folder / "config.toml"
        self.note = folder / "groups.json"
        self.file.write_text("")
        self.begin()

    def begin(self):
        self.watchdog = Watchdog(
            control=None,
            supervisord=SimpleNamespace(programs=lambda: self.programs, terminate=self.ended.append),
            settings=Settings.load(self.file, environ={}),
            detector=None,
            restarts=SimpleNamespace(note_state=lambda *_: 0.0),
            files=None,
            groups=CameraGroups(self.note, "run"),
            socket=None,
            answer=None,
        )

    def look(self, times=3):
        self.ended.clear()
        for _ in range(times):
            self.watchdog._list_programs(0.0)
        return len(self.ended)


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    assert service.look() == 0
    return service


def test_a_wrong_file_ends_nothing_until_it_is_right(service, caplog):
    """They were ended every 3 s, for as long as config.toml was wrong."""
    service.programs = TWO
    service.file.write_text("[cameras.porch\n")
    assert service.look() == 0
    assert caplog.text.count("wait for a right config.toml") == 1
    service.file.write_text("[cameras.porch]\n")
    assert service.look() == 3


def test_a_note_that_cannot_be_written_is_told_once_and_written_later(service, caplog):
    """They were ended every 3 s, for as long as the disk was full."""
    service.note.unlink()
    service.note.mkdir()
    service.programs = TWO
    assert service.look() == 3
    assert caplog.text.count("kept in memory only") == 1
    service.note.rmdir()
    assert service.look() == 0
    service.begin()
    assert service.look() == 0, "the new watchdog reads the note"
    service.programs = ONE
    assert service.look() == 3


def test_a_watchdog_killed_in_between_goes_on_where_it_was(service):
    service.programs = TWO

    def be_killed(name):
        if service.ended:
            raise KeyboardInterrupt
        service.ended.append(name)

    service.watchdog._supervisord.terminate = be_killed
    with pytest.raises(KeyboardInterrupt):
        service.look()
    service.begin()
    assert service.look() == 3
