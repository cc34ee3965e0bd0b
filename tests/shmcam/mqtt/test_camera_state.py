"""What the broker says of each camera: from the hub's status, and from events, which are newer."""

from shmcam.control.messages import CameraLost, MotionBegan, NightEnded, RecordingStarted, Saved
from shmcam.mqtt.camera_state import CameraStates
from shmcam.mqtt.health import MachineFigures, health_of
from shmcam.runtime.clock import ClockError


def status(*cameras, analyzer="running", moving=False, **row):
    cameras = cameras or ("cam0",)
    processes = []
    for index, camera in enumerate(cameras):
        end = f"-{camera}" if index else ""
        figures = {"moving": moving, "override": "auto", "dark_score": 112.5, "night": False}
        processes += [
            {"program": f"capture{end}", "state": "running", "reason": ""},
            {"program": f"analyzer{end}", "state": analyzer, "reason": "no sign of life", "figures": figures},
        ]
    values = {"state": "found", "fps": 30.0, "dropped": 4, "night": None, "recording": None, "source": "synthetic"}
    return {
        "processes": [*processes, {"program": "exporter", "state": "silent", "reason": ""}],
        "cameras": [{"camera": camera, **values, **row} for camera in cameras],
    }


def states_after(*args, **kwargs):
    states = CameraStates(60)
    states.note_status(status(*args, **kwargs), 0.0)
    return states, states.by_name["cam0"]


def test_the_status_of_the_hub_gives_every_field():
    _, camera = states_after(moving=True)
    wanted = {"fps": 30.0, "drops": 4, "night": False, "night_mode": "auto", "motion": True, "recording": False}
    assert wanted.items() <= camera.values.items()
    assert camera.is_online
    assert camera.values["problem"] == ""  # the silent exporter is not this camera's
    assert camera.model == "synthetic"


def test_an_event_counts_at_once_and_against_a_status_that_is_older():
    states, camera = states_after()
    assert states.note_event(MotionBegan(camera="cam0"), 1.0) is camera
    assert camera.values["motion"] is True
    states.note_status(status(moving=False), 2.0)  # of a heartbeat from before the event
    assert camera.values["motion"] is True
    states.note_status(status(moving=False), 4.1)
    assert camera.values["motion"] is False


def test_each_event_that_describes_a_state_changes_its_field():
    states, camera = states_after()
    states.note_event(RecordingStarted(camera="cam0", path="/a"), 1.0)
    states.note_event(NightEnded(camera="cam0"), 1.0)
    states.note_event(CameraLost(camera="cam0"), 1.0)
    assert (camera.values["recording"], camera.values["night"], camera.is_online) == (True, False, False)
    assert states.note_event(Saved(camera="cam0", path="/a"), 1.0) is None
    assert states.note_event(MotionBegan(camera="cam9"), 1.0) is None


def test_a_dead_analyzer_leaves_motion_unknown_and_is_the_cameras_problem():
    _, camera = states_after(analyzer="silent")
    assert camera.values["motion"] is None
    assert camera.values["problem"] == "analyzer is silent: no sign of life"


def test_a_lost_camera_is_not_online_and_says_why():
    _, camera = states_after(state="lost", reason="unplugged")
    assert (camera.is_online, camera.values["problem"]) == (False, "unplugged")


def test_processes_of_a_further_camera_are_told_from_those_of_the_first():
    states, first = states_after("cam0", "cam1")
    data = status("cam0", "cam1")
    data["processes"][3] |= {"state": "FATAL", "reason": "given up"}
    states.note_status(data, 5.0)
    assert first.values["problem"] == ""
    assert states.by_name["cam1"].values["problem"] == "analyzer-cam1 is FATAL: given up"


def test_a_camera_is_gone_when_the_hub_has_not_named_it_for_a_minute():
    states, _ = states_after("cam0", "cam1")
    assert states.note_status(status("cam0"), 10.0) == []
    assert not states.by_name["cam1"].is_online
    assert states.note_status(status("cam0", "cam1"), 60.0) == []  # the hub had been restarted
    assert states.note_status(status("cam0"), 70.0) == []
    assert states.note_status(status("cam0"), 130.0) == ["cam1"]
    assert list(states.by_name) == ["cam0"]


def test_a_silent_hub_leaves_nothing_online():
    states, camera = states_after()
    states.note_silence()
    assert (camera.is_online, camera.values["problem"]) == (False, "the hub does not answer")


def test_health_tells_what_is_wrong_and_how_well_the_clock_goes():
    machine = MachineFigures(total_bytes=100, free_bytes=40, clock=ClockError(True, 20, 1500))
    health = health_of("pi", status(), machine, 0)
    assert (health["ok"], health["problems"]) == (False, ["exporter is silent"])
    assert health["clock"] == {"synchronized": True, "error_us": 1500, "estimated_us": 20}
    assert health["cameras"]["cam0"] == {"state": "found", "fps": 30.0, "drops": 4, "night": None, "recording": False}
    unset = health_of("pi", {}, MachineFigures(clock=ClockError(False, 0, 0)), 0)
    assert unset["problems"] == ["the hub does not answer"]
    assert unset["clock"] == {"synchronized": False, "error_us": None, "estimated_us": None}
