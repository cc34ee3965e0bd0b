"""The watchdog's decisions, with a clock that the test holds."""

import pytest
from msgspec.structs import replace

from shmcam.control.messages import Heartbeat
from shmcam.control.settings import ControlSettings
from shmcam.runtime.supervisord import Program
from shmcam.watchdog.hang_detector import Action, HangDetector, ProcessSigns
from shmcam.watchdog.restart_policy import RECOVERED_S, RestartPolicy
from shmcam.watchdog.supervisord_events import BYTES_MAX, EventParser, SupervisordEvent

SETTINGS = ControlSettings(startup_s=60)


def program(name, pid, state="RUNNING"):
    return Program(name, name, state, pid, 0.0, 0, "")


class Night:
    """A detector and the programs it watches, with a hub that works; time passes in half seconds."""

    def __init__(self, *names, settings=SETTINGS):
        self.detector = HangDetector(settings)
        self.now_s = 1000.0
        self.programs = {name: program(name, 10 + number) for number, name in enumerate((*names, "hub"))}
        self.ages_s, self.rings = {}, {}
        self.told: list[Action] = []

    def beat(self, name, *, frames=None, state="running", rss_mib=50, exposure_us=0, pid=0):
        role = name.partition("-")[0]
        figures = {"exposure_us": exposure_us} | ({"frames": frames} if frames is not None else {})
        pid = pid or self.programs[name].pid
        beat = Heartbeat(role=role, pid=pid, state=state, rss_bytes=rss_mib << 20, figures=figures)
        self.detector.hear(beat, self.now_s)

    def echo(self):
        self.detector.hear(Heartbeat(role="watchdog", pid=1), self.now_s)

    def signs(self):
        return {
            name: ProcessSigns(program.pid, self.ages_s.get(name, 0.0), self.rings.get(name))
            for name, program in self.programs.items()
        }

    def check(self):
        actions = self.detector.check(self.programs, self.now_s, self.signs())
        self.told += actions
        return [(round(self.now_s - 1000, 1), action.kind, action.program) for action in actions]

    def go_on(self, seconds, beating=(), *, hub=True, ring=(), **beats):
        """`ring`: the processes whose ring moves."""
        actions = []
        for step in range(int(seconds * 2)):
            self.now_s += 0.5
            self.rings |= {name: (step, int(self.now_s)) for name in ring}
            if hub:
                self.echo()
            if step % 2:
                for name in beating:
                    self.beat(name, **beats)
            actions += self.check()
        return actions


def test_a_silent_process_is_reported_within_5_s_and_killed_within_21():
    night = Night("capture", "analyzer")
    night.beat("capture")
    night.beat("analyzer")
    found = night.go_on(22, beating=["capture"])
    assert found == [(4.5, "stalled", "analyzer"), (20.5, "kill", "analyzer")]


def test_a_process_that_beats_is_left_alone_for_ever():
    night = Night("capture")
    night.beat("capture")
    assert night.go_on(300, beating=["capture"]) == []


def test_a_program_that_never_spoke_to_the_hub_is_left_alone():
    assert Night("mine").go_on(60) == []


def test_capture_that_turns_but_publishes_nothing_is_killed_too():
    night = Night("capture", "analyzer")
    night.beat("capture", frames=100)
    assert night.go_on(22, beating=["capture", "analyzer"], frames=100) == [
        (4.5, "stalled", "capture"),
        (20.5, "kill", "capture"),
    ]


def test_capture_without_a_camera_is_not_hanging():
    night = Night("capture")
    night.beat("capture", frames=100)
    assert night.go_on(60, beating=["capture"], frames=100, state="no camera") == []


def test_long_night_exposures_are_not_hanging():
    night = Night("capture")
    night.beat("capture", frames=100, exposure_us=30_000_000)
    assert night.go_on(90, beating=["capture"], frames=100, exposure_us=30_000_000) == []


def test_everything_silent_at_once_gets_one_more_period_and_no_more():
    night = Night("capture", "analyzer", "recorder")
    for name in ("capture", "analyzer", "recorder"):
        night.beat(name)
    found = night.go_on(40)
    assert found[0] == (4.5, "grace", "")
    assert [kind for _, kind, _ in found].count("grace") == 1
    killed = {program: when for when, kind, program in reversed(found) if kind == "kill"}
    assert set(killed) == {"capture", "analyzer", "recorder"}
    assert min(killed.values()) > 24


def test_a_process_that_survives_its_kill_is_killed_again():
    night = Night("capture", "analyzer")
    night.beat("analyzer")
    found = [kind for _, kind, _ in night.go_on(31, beating=["capture"])]
    assert found == ["stalled", "kill", "kill", "kill"]


def test_a_watchdog_that_is_always_late_still_acts():
    night = Night("capture", "analyzer")
    night.beat("analyzer")
    kinds = []
    for _ in range(14):
        night.now_s += 3
        night.echo()
        night.beat("capture")
        kinds += [kind for _, kind, _ in night.check()]
    assert kinds.count("grace") <= 2
    assert "kill" in kinds


def test_a_watchdog_that_slept_itself_judges_nobody():
    night = Night("capture", "analyzer")
    night.beat("capture")
    assert night.go_on(1) == []
    night.now_s += 60
    assert night.go_on(0.5) == [(61.5, "grace", "")]
    assert night.go_on(4, beating=["capture"]) == []


def test_a_restarted_process_begins_anew():
    night = Night("analyzer", "capture")
    night.beat("analyzer")
    night.go_on(15, beating=["capture"])
    night.programs["analyzer"] = program("analyzer", 99)
    assert night.go_on(30, beating=["capture"]) == []


def test_a_process_beyond_its_memory_limit_is_restarted():
    night = Night("streamer", settings=ControlSettings(memory_limit_mb=350))
    night.beat("streamer", rss_mib=349)
    assert night.go_on(2, beating=["streamer"], rss_mib=349) == []
    found = night.go_on(13, beating=["streamer"], rss_mib=400)
    assert found == [(3.0, "too_big", "streamer"), (13.5, "kill", "streamer")], "asked once; killed if it stays"
    night.programs["streamer"] = program("streamer", 98)
    assert night.go_on(13, beating=["streamer"], rss_mib=300) == []
    assert night.go_on(1, beating=["streamer"], rss_mib=351) == [(29.0, "too_big", "streamer")]


def test_a_storm_of_unasked_ends_is_told_once_per_window():
    detector = HangDetector(SETTINGS)
    actions = [action for n in range(10) for action in detector.end("recorder", 1000.0 + 5 * n, expected=False)]
    assert [action.kind for action in actions] == ["storm", "storm"]
    assert [a for n in range(10) for a in detector.end("recorder", 2000.0 + 30 * n, expected=False)] == []
    assert [a for n in range(10) for a in detector.end("recorder", 3000.0 + n, expected=True)] == []


def test_what_supervisord_gave_up_is_started_again_after_10_20_40_s():
    policy = RestartPolicy(SETTINGS)
    pauses, now_s = [], 0.0
    for _ in range(7):
        pauses.append(policy.note_state("capture", "FATAL", now_s))
        assert policy.note_state("capture", "FATAL", now_s + 1) is None
        now_s += pauses[-1]
        assert policy.take_due(now_s) == ["capture"]
        policy.note_state("capture", "STARTING", now_s)
    assert pauses == [10, 20, 40, 80, 160, 300, 300]
    policy.note_state("capture", "RUNNING", now_s)
    policy.note_state("capture", "RUNNING", now_s + 61)
    assert policy.note_state("capture", "FATAL", now_s + 100) == 10


def test_a_program_stopped_on_purpose_is_not_started():
    policy = RestartPolicy(SETTINGS)
    policy.note_state("capture", "FATAL", 0.0)
    policy.note_state("capture", "STOPPED", 5.0)
    assert policy.take_due(1000.0) == []


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_supervisords_protocol_in_any_pieces(piece):
    payload = b"processname:cat groupname:cat from_state:RUNNING expected:0 pid:2766"
    header = (
        f"ver:3.0 server:supervisor serial:21 pool:w poolserial:1 eventname:PROCESS_STATE_EXITED len:{len(payload)}\n"
    )
    data, parser, events = (header.encode() + payload) * 3, EventParser(), []
    for start in range(0, len(data), piece):
        events += parser.feed(data[start : start + piece])
    assert (
        events == [SupervisordEvent("PROCESS_STATE_EXITED", dict(t.split(":") for t in payload.decode().split()))] * 3
    )


@pytest.mark.parametrize(
    "garbage", [b"\n", b"ver:3.0 len:x eventname:TICK_5\n", b"eventname:X len:99999999\n", b"x" * 70_000]
)
def test_what_is_not_the_protocol_ends_the_watchdog_loudly(garbage):
    with pytest.raises((ValueError, KeyError)):
        EventParser().feed(garbage)


def test_a_process_that_never_says_a_word_is_reported_and_killed_once_its_start_should_be_over():
    """One that hung before its first heartbeat, or while the watchdog was restarted, was never seen."""
    night = Night("capture", "recorder-cam1", "mine", "watchdog")
    found = night.go_on(62, beating=["capture"])
    assert found == [(31.0, "stalled", "recorder-cam1"), (61.0, "kill", "recorder-cam1")]
    assert night.go_on(5, beating=["capture"]) == [(66.0, "kill", "recorder-cam1")], "supervisord may not have heard"


def test_a_new_process_gets_its_own_time_to_start_and_one_that_ended_none():
    night = Night("capture", "recorder")
    night.go_on(29, beating=["capture"])
    night.programs["recorder"] = program("recorder", 99)
    assert night.go_on(29, beating=["capture"]) == []
    night.programs["recorder"] = program("recorder", 0, "STOPPED")
    assert night.go_on(90, beating=["capture"]) == []


def test_a_users_own_program_that_spoke_once_is_expected_to_speak_after_its_next_start_too():
    night = Night("capture", "mine")
    night.beat("mine")
    assert night.go_on(0.5) == []
    night.programs["mine"] = program("mine", 99)
    assert (61.5, "kill", "mine") in night.go_on(62, beating=["capture"])


def test_silence_at_the_start_is_forgiven_where_a_wrapper_hides_the_pid():
    night = Night("capture", "recorder")
    for _ in range(10):
        assert night.go_on(20, beating=["capture"]) == []
        night.programs["hub"] = program("hub", 0, "BACKOFF")
        night.check()
        night.programs["hub"] = program("hub", 98)
        assert night.go_on(10, beating=["capture"]) == []
        night.beat("recorder", pid=99)
        told = [a for a in night.go_on(11, beating=["capture"]) if a[1] != "stranger"]
        assert told == ([(31.0, "stalled", "recorder")] if night.now_s < 1050 else []), "told once, never killed"


@pytest.mark.parametrize(("up_s", "down_s"), [(8, 2), (6, 4), (3, 5)])
def test_a_hub_that_keeps_dying_does_not_start_the_clock_of_a_stopped_process_anew(up_s, down_s):
    """A stopped capture was not replaced in 81 s: each death of the hub forgave its silence."""
    night = Night("capture", "analyzer", "recorder")
    others = ["analyzer", "recorder"]
    for name in ("capture", *others):
        night.beat(name)
    found = []
    for death in range(10):
        found += night.go_on(up_s, beating=others)
        night.programs["hub"] = program("hub", 0, "BACKOFF")
        found += night.go_on(down_s / 2, hub=False)
        night.programs["hub"] = program("hub", 100 + death)
        found += night.go_on(down_s / 2, hub=False)  # it runs, and nobody has found it again yet
    kills = [(when, name) for when, kind, name in found if kind == "kill"]
    assert kills and {name for _, name in kills} == {"capture"}
    assert kills[0][0] <= (20 + up_s) * (up_s + down_s) / up_s + 1  # 20 s of silence while it could be heard


@pytest.mark.parametrize("up_s", [6, 8])
def test_a_hub_that_keeps_dying_does_not_give_a_process_that_never_spoke_its_start_again(up_s):
    night = Night("capture", "recorder")
    found = []
    for death in range(12):
        found += night.go_on(up_s, beating=["capture"])
        night.programs["hub"] = program("hub", 0, "BACKOFF")
        found += night.go_on(2, hub=False)
        night.programs["hub"] = program("hub", 100 + death)
    assert {name for _, kind, name in found if kind == "kill"} == {"recorder"}


def test_a_first_heartbeat_that_the_end_of_the_hub_took_gets_a_second_chance():
    night = Night("capture", "recorder")
    assert [kind for _, kind, _ in night.go_on(60.5, beating=["capture"])] == ["stalled"]
    night.programs["hub"] = program("hub", 0, "BACKOFF")
    night.go_on(2, hub=False)
    night.programs["hub"] = program("hub", 98)
    assert night.go_on(4, beating=["capture"]) == []
    assert night.go_on(30, beating=["capture", "recorder"]) == []


def test_a_restarted_watchdog_gives_a_process_that_has_run_for_long_no_time_to_start():
    """A stopped recorder was replaced 180 s after the watchdog had been."""
    night = Night("capture", "recorder", "analyzer")
    night.ages_s = {"recorder": 3600.0, "capture": 3600.0, "analyzer": 30.0}
    assert [a for a in night.go_on(36, beating=["capture"]) if a[1] == "kill"] == [
        (21.0, "kill", "recorder"),
        (26.0, "kill", "recorder"),
        (31.0, "kill", "recorder"),
        (31.0, "kill", "analyzer"),
        (36.0, "kill", "recorder"),
        (36.0, "kill", "analyzer"),
    ]


def test_the_ring_tells_that_capture_hangs_while_no_hub_does():
    night = Night("capture", "analyzer")
    night.beat("capture")
    night.beat("analyzer")
    assert night.go_on(3, ring=["capture"], beating=["capture", "analyzer"]) == []
    night.programs["hub"] = program("hub", 0, "FATAL")
    assert night.go_on(60, hub=False, ring=["capture"]) == [], "it moves: nothing hangs"
    assert night.go_on(21, hub=False) == [(83.5, "kill", "capture")]
    night.programs["capture"] = program("capture", 99)
    assert night.go_on(19, hub=False) == [], "the ring that the new one finds is the old one's"


@pytest.mark.parametrize(("up_s", "down_s"), [(8, 2), (3, 5)])
def test_a_hub_that_keeps_dying_does_not_delay_the_end_of_a_capture_whose_ring_stands_still(up_s, down_s):
    night = Night("capture", "analyzer", "recorder")
    others = ["analyzer", "recorder"]
    assert night.go_on(2, beating=["capture", *others], ring=["capture"]) == []
    found = []
    for death in range(5):
        found += night.go_on(up_s, beating=others)
        night.programs["hub"] = program("hub", 0, "BACKOFF")
        found += night.go_on(down_s, hub=False)
        night.programs["hub"] = program("hub", 100 + death)
    assert next((when, name) for when, kind, name in found if kind == "kill") == (22.5, "capture")


def test_a_capture_whose_loop_turns_and_whose_ring_stands_still_is_killed_unless_everything_does():
    night = Night("capture", "analyzer")
    assert night.go_on(2, beating=["capture", "analyzer"], ring=["capture"]) == []
    assert (22.5, "kill", "capture") in night.go_on(21, beating=["capture", "analyzer"])
    night = Night("capture", "analyzer")
    assert night.go_on(2, beating=["capture", "analyzer"], ring=["capture"]) == []
    killed = [when for when, kind, name in night.go_on(40) if (kind, name) == ("kill", "capture")]
    assert killed[0] == 27.0, "everything fell silent at once: one more period"


def test_a_watchdog_that_slept_itself_leaves_the_ring_its_time():
    night = Night("capture", "analyzer")
    assert night.go_on(2, beating=["capture", "analyzer"], ring=["capture"]) == []
    night.now_s += 60
    assert night.go_on(0.5) == [(62.5, "grace", "")]
    assert night.go_on(19, beating=["capture", "analyzer"]) == []


def test_a_hub_that_stands_still_is_reported_and_killed_and_no_other_process_is():
    night = Night("capture", "analyzer")
    night.beat("capture")
    night.beat("analyzer")
    assert night.go_on(42, hub=False) == [(5.0, "hub_stalled", "hub"), (21.0, "kill", "hub"), (41.5, "kill", "hub")]
    night.programs["hub"] = program("hub", 0, "BACKOFF")
    assert night.go_on(8, hub=False) == []
    night.programs["hub"] = program("hub", 98)
    assert night.go_on(6, beating=["capture"]) == [(54.5, "stalled", "analyzer")], "silent since the hub's return"


def test_a_watchdog_that_slept_itself_kills_no_hub_either():
    night = Night("capture")
    night.beat("capture")
    night.check()
    night.now_s += 60
    assert night.check() == [(60.0, "grace", "")]
    assert night.go_on(4, beating=["capture"], hub=False) == []


def test_a_process_that_supervisord_did_not_start_is_reported_once_with_the_line_that_ends_it():
    night = Night("capture", "recorder")
    for turn in range(3):
        night.beat("capture")
        night.beat("recorder", pid=4711)
        night.beat("mine", pid=4712)
        actions = night.detector.check(night.programs, night.now_s)
        night.now_s += 11
        night.echo()
        actions += night.detector.check(night.programs, night.now_s)
        reported = [(action.program, action.reason) for action in actions if action.kind == "stranger"]
        said = "pid 4711 says it is recorder, but supervisord did not start it; type: kill 4711"
        assert reported == ([("recorder", said)] if turn == 0 else [])


def test_a_new_process_may_beat_before_supervisord_tells_of_it():
    night = Night("capture", "analyzer")
    night.beat("analyzer", pid=99)
    assert night.go_on(3, beating=["capture"]) == []
    night.programs["analyzer"] = program("analyzer", 99)
    assert night.go_on(21, beating=["capture"]) == [(4.5, "stalled", "analyzer"), (20.5, "kill", "analyzer")]


def test_what_is_told_of_silence_names_what_is_missing_and_for_how_long():
    night = Night("capture", "analyzer", "recorder")
    night.beat("capture", frames=100)
    night.beat("analyzer")
    night.go_on(22, beating=["capture"], frames=100)
    assert sorted(night.told, key=lambda action: (action.kind, action.program)) == [
        Action("kill", "analyzer", "no sign of life for 20 s", 20.5),
        Action("kill", "capture", "says it runs, but no new frame for 20 s", 20.5),
        Action("stalled", "analyzer", "no sign of life for 4.5 s", 4.5),
        Action("stalled", "capture", "no new frame for 4.5 s", 4.5),
    ]


def test_what_is_told_of_hub_start_ring_host_and_memory():
    night = Night("capture", "recorder")
    night.go_on(31, beating=["capture"])
    night.go_on(31, beating=["capture"])
    assert night.told == [
        Action("stalled", "recorder", "not a word for 30 s, and its start should be over", 30.5),
        Action("kill", "recorder", "not a word for 60 s, and its start should be over", 60.5),
    ]
    night = Night("capture")
    night.beat("capture")
    night.go_on(22, hub=False)
    assert night.told == [
        Action("hub_stalled", "hub", "no echo for 4.5 s", 4.5),
        Action("kill", "hub", "no echo for 20 s", 20.5),
    ]
    night = Night("capture", "analyzer")
    night.go_on(2, beating=["capture", "analyzer"], ring=["capture"])
    night.go_on(21, beating=["capture", "analyzer"])
    assert night.told[0] == Action("kill", "capture", "neither frame nor heartbeat in its ring for 20 s", 20.5)
    night.now_s += 60
    night.check()
    assert night.told[-1] == Action("grace", "", "the watchdog itself was stopped or starved")
    night = Night("capture", "analyzer")
    night.go_on(1, beating=["capture", "analyzer"])
    night.go_on(5)
    assert night.told == [Action("grace", "", "every process fell silent at once")]
    night = Night("streamer", settings=ControlSettings(memory_limit_mb=350))
    night.go_on(13, beating=["streamer"], rss_mib=351)
    assert night.told == [
        Action("too_big", "streamer", "memory", used_mb=351.0, limit_mb=350.0),
        Action("kill", "streamer", "too much memory, and it does not end when asked"),
    ]
    assert Night("streamer", settings=ControlSettings(memory_limit_mb=350)).go_on(13, ["streamer"], rss_mib=350) == []
    assert Night("streamer", settings=ControlSettings(memory_limit_mb=0)).go_on(13, ["streamer"], rss_mib=9999) == []


def test_a_storm_tells_the_program_its_ends_and_where_to_look():
    settings = ControlSettings(storm_restarts=3, storm_window_s=30)
    ends = [
        (0, []),
        (15, []),
        (30, [Action("storm", "exporter", "exporter ended 3 times within 30 s; see: shmcam logs exporter")]),
    ]
    detector = HangDetector(settings)
    assert [(at, detector.end("exporter", 1000.0 + at, expected=False)) for at, _ in ends] == ends
    detector = HangDetector(settings)
    assert [detector.end("exporter", 1000.0 + at, expected=False) for at in (0, 15, 31)] == [[], [], []], (
        "not within 30 s"
    )
    detector = HangDetector(settings)
    assert [detector.end("exporter", 1000.0 + at, expected=at == 15) for at in (0, 15, 30)] == [[], [], []]


def test_a_process_that_ended_is_forgotten_at_once():
    """Its successor may have the same pid; what the old one said is not the new one's."""
    night = Night("capture", "analyzer")
    night.beat("analyzer")
    night.go_on(15, beating=["capture"])
    night.detector.end("analyzer", night.now_s, expected=True)
    assert night.go_on(20, beating=["capture"]) == []


@pytest.mark.parametrize(
    ("state", "frames", "is_killed"),
    [("running", 0, True), ("running", None, False), ("running", "many", False), ("no camera", 7, False)],
)
def test_only_a_capture_that_counts_frames_and_says_it_runs_can_lack_them(state, frames, is_killed):
    night = Night("capture", "analyzer")
    night.beat("capture", frames=frames, state=state)
    found = night.go_on(22, beating=["capture", "analyzer"], frames=frames, state=state)
    assert ((20.5, "kill", "capture") in found) == is_killed
    assert not [name for _, kind, name in found if name == "analyzer"], "only capture publishes"


@pytest.mark.parametrize(("exposure_us", "kill_s"), [(0, 20.5), (1_000_000, 23.5), (2_000_000, 26.5), ("long", 20.5)])
def test_a_frame_may_take_three_exposure_times_more(exposure_us, kill_s):
    night = Night("capture")
    night.beat("capture", frames=5, exposure_us=exposure_us)
    found = night.go_on(28, beating=["capture"], frames=5, exposure_us=exposure_us)
    assert next(when for when, kind, _ in found if kind == "kill") == kill_s


def test_what_is_too_long_for_supervisords_protocol_is_refused_at_the_byte_and_what_just_fits_is_read():
    assert EventParser().feed(b"x" * BYTES_MAX) == []
    with pytest.raises(ValueError, match=r"^no event header within 64 KiB$"):
        EventParser().feed(b"x" * (BYTES_MAX + 1))
    assert EventParser().feed(b"eventname:TICK_5 len:0\n") == [SupervisordEvent("TICK_5", {})]
    whole = EventParser().feed(b"eventname:TICK_5 len:%d\n" % BYTES_MAX + b"when:1" + b" " * (BYTES_MAX - 6))
    assert whole == [SupervisordEvent("TICK_5", {"when": "1"})]
    for length in (-1, BYTES_MAX + 1):
        with pytest.raises(ValueError, match=f"^event of {length} bytes, limit 65536$"):
            EventParser().feed(b"eventname:TICK_5 len:%d\n" % length)


def test_the_pairs_of_an_event_are_those_of_its_first_line_and_a_value_may_hold_colons():
    data = b"processname:a:b:c pid:7\nlater:1"
    assert EventParser().feed(b"eventname:X len:%d\n" % len(data) + data) == [
        SupervisordEvent("X", {"processname": "a:b:c", "pid": "7"})
    ]


def test_a_program_is_due_once_after_its_pause_and_recovered_only_after_a_minute_of_running():
    policy = RestartPolicy(ControlSettings(fatal_retry_s=10, fatal_retry_max_s=300))
    assert policy.note_state("recorder", "FATAL", 1000.0) == 10
    assert policy.take_due(1009.9) == []
    assert policy.take_due(1010.0) == ["recorder"]
    assert policy.take_due(1020.0) == [], "once"
    assert policy.note_state("recorder", "RUNNING", 1021.0) is None
    assert policy.note_state("recorder", "RUNNING", 1021.0 + RECOVERED_S) is None
    assert policy.note_state("recorder", "FATAL", 1022.0 + RECOVERED_S) == 20, "not long enough: the next pause"
    policy.take_due(9000.0)
    assert policy.note_state("recorder", "RUNNING", 9001.0) is None
    assert policy.note_state("recorder", "STARTING", 9030.0) is None, "it ended meanwhile: the minute begins anew"
    assert policy.note_state("recorder", "RUNNING", 9040.0) is None
    assert policy.note_state("recorder", "RUNNING", 9039.0 + RECOVERED_S) is None
    assert policy.note_state("recorder", "FATAL", 9040.0 + RECOVERED_S) == 40
    policy.take_due(19_000.0)
    policy.note_state("recorder", "RUNNING", 19_001.0)
    policy.note_state("recorder", "RUNNING", 19_001.1 + RECOVERED_S)
    assert policy.note_state("recorder", "FATAL", 20_000.0) == 10, "recovered: the first pause again"


def test_a_stranger_of_another_camera_is_named_by_its_role_and_forgives_that_cameras_program():
    """Behind a wrapper supervisord knows another pid: the program is not silent then."""
    night = Night("capture", "recorder-cam1", settings=ControlSettings(startup_s=15))
    night.beat("capture")
    beat = Heartbeat(role="recorder", camera="cam1", pid=4711)
    found = []
    for _ in range(3):
        night.detector.hear(beat, night.now_s)
        found += night.go_on(10.5, beating=["capture"])
    assert "kill" not in [kind for _, kind, _ in found]
    assert "stranger" not in [kind for _, kind, _ in found], "no program is called recorder here"
    assert [kind for _, kind, _ in night.go_on(16, beating=["capture"])] == ["kill"], "silent since, and told before"


@pytest.mark.parametrize(("late_s", "graces"), [(2.5, 0), (2.75, 1)])
def test_a_check_counts_as_late_from_two_and_a_half_seconds(late_s, graces):
    night = Night("capture")
    night.beat("capture")
    night.go_on(1, beating=["capture"])
    night.now_s += late_s
    night.echo()
    assert [kind for _, kind, _ in night.check()] == ["grace"] * graces


@pytest.mark.parametrize(("after_s", "graces"), [(40.0, 1), (40.5, 2)])
def test_another_pause_is_forgiven_only_two_periods_after_the_one_before(after_s, graces):
    night = Night("capture")
    found = night.go_on(1, beating=["capture"])
    night.now_s += 5
    night.echo()
    found += night.check()
    found += night.go_on(after_s - 5, beating=["capture"])
    night.now_s += 5
    night.echo()
    found += night.check()
    assert [kind for _, kind, _ in found].count("grace") == graces


def test_signs_of_another_process_say_nothing():
    """The program was started again since they were looked at."""
    night = Night("capture", "recorder")
    night.ages_s["recorder"] = 3600.0
    signs = night.signs

    def of_others():
        return {name: replace(sign, pid=sign.pid + 1000, ring=(1, 1)) for name, sign in signs().items()}

    night.signs = of_others
    assert night.go_on(30, beating=["capture"]) == [], "neither its age nor its ring"
    assert night.go_on(1, beating=["capture"]) == [(31.0, "stalled", "recorder")]


def test_a_program_that_was_stopped_before_its_first_word_is_not_watched_and_one_that_ends_slowly_is():
    night = Night("capture", "recorder")
    night.beat("recorder")
    night.go_on(1, beating=["capture"])
    night.programs["recorder"] = program("recorder", night.programs["recorder"].pid, "STOPPING")
    assert (20.5, "kill", "recorder") in night.go_on(22, beating=["capture"]), "it hangs in its end"
    night = Night("capture", "recorder")
    night.go_on(1, beating=["capture"])
    night.programs["recorder"] = program("recorder", night.programs["recorder"].pid, "STOPPING")
    assert night.go_on(90, beating=["capture"]) == []


def test_all_silent_at_once_is_forgiven_again_after_they_were_heard():
    night = Night("capture", "analyzer")
    for _ in range(2):
        night.go_on(2, beating=["capture", "analyzer"])
        assert [kind for _, kind, _ in night.go_on(6)] == ["grace"]


def test_a_report_is_made_again_only_after_the_process_was_heard():
    night = Night("capture", "analyzer")
    night.beat("analyzer")
    assert [kind for _, kind, _ in night.go_on(10, beating=["capture"])] == ["stalled"]
    night.beat("analyzer")
    assert [kind for _, kind, _ in night.go_on(10, beating=["capture"])] == ["stalled"]


def test_an_empty_list_of_programs_makes_no_stranger():
    """supervisord did not answer."""
    detector = HangDetector(SETTINGS)
    detector.hear(Heartbeat(role="recorder", pid=7), 1000.0)
    assert [detector.check({}, 1000.0 + 2 * number) for number in range(11)] == [[]] * 11
    assert [action.kind for action in detector.check({"recorder": program("recorder", 8)}, 1021.0)] == ["stranger"]


def test_strangers_are_told_from_ten_seconds_on():
    detector, programs = HangDetector(SETTINGS), {"recorder": program("recorder", 8)}
    detector.hear(Heartbeat(role="recorder", pid=7), 1000.0)
    assert detector.check(programs, 1010.0) == []
    assert [action.kind for action in detector.check(programs, 1010.5)] == ["stranger"]


def test_frames_that_stand_still_are_not_counted_while_the_hub_is_away():
    night = Night("capture", "analyzer")
    night.beat("capture", frames=5)
    night.beat("analyzer")
    others = ["capture", "analyzer"]
    found = night.go_on(10, beating=others, frames=5)
    night.programs["hub"] = program("hub", 0, "BACKOFF")
    found += night.go_on(5, hub=False)
    night.programs["hub"] = program("hub", 98)
    found += night.go_on(20, beating=others, frames=5)
    assert next(when for when, kind, name in found if (kind, name) == ("kill", "capture")) == 25.5


def test_a_hub_that_falls_silent_again_is_reported_again():
    night = Night("capture")
    found = night.go_on(6, hub=False) + night.go_on(2, beating=["capture"]) + night.go_on(6, hub=False)
    assert [kind for _, kind, _ in found] == ["hub_stalled", "hub_stalled"]


def test_a_stranger_that_goes_on_beating_is_told_ten_seconds_after_its_first_word():
    detector, programs = HangDetector(SETTINGS), {"recorder": program("recorder", 8)}
    told = []
    for second in range(15):
        detector.hear(Heartbeat(role="recorder", pid=7), 1000.0 + second)
        told += [(second, action.kind) for action in detector.check(programs, 1000.0 + second)]
    assert told == [(11, "stranger")]


def test_a_storm_is_of_one_program_and_of_its_last_ends():
    detector = HangDetector(ControlSettings(storm_restarts=3, storm_window_s=30))
    ends = [("recorder", 0), ("exporter", 1), ("recorder", 2), ("exporter", 60), ("exporter", 61), ("exporter", 62)]
    told = [detector.end(name, 1000.0 + at, expected=False) for name, at in ends]
    assert [bool(actions) for actions in told] == [False] * 5 + [True]


def test_one_that_ran_before_the_watchdog_has_twenty_seconds_though_others_are_killed_after_five():
    night = Night("capture", "recorder", settings=ControlSettings(startup_s=60, hang_report_s=2, hang_kill_s=5))
    night.ages_s = {"recorder": 3600.0}
    kills = [when for when, kind, _ in night.go_on(22, beating=["capture"]) if kind == "kill"]
    assert kills == [21.0]


def test_two_that_are_too_big_are_both_asked():
    night = Night("streamer", "recorder", settings=ControlSettings(memory_limit_mb=350))
    found = night.go_on(2, beating=["streamer", "recorder"], rss_mib=351)
    assert sorted(found) == [(1.0, "too_big", "recorder"), (1.0, "too_big", "streamer")]
