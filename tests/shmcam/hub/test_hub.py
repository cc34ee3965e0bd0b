"""Routing, decided without a socket: what came in, what is to be done."""

import pytest

from shmcam.control.codec import Received, Refused
from shmcam.control.messages import (
    CameraFound,
    CameraLost,
    Chunk,
    Heartbeat,
    Hello,
    ModeChanged,
    ModeRequested,
    MotionBegan,
    MotionEnded,
    NightBegan,
    NightEnded,
    NightLevel,
    Ping,
    Preview,
    PreviewFrame,
    Quit,
    Record,
    RecordingStarted,
    Reply,
    Save,
    Saved,
    Set,
    SettingChanged,
    ShortStream,
    Status,
    Subscribe,
    error,
)
from shmcam.hub.pending_commands import PENDING_MAX
from shmcam.hub.router import PENDING_PER_CONNECTION_MAX, RECENT_EVENTS_MAX, Close, Router, RunCommand, Send
from shmcam.hub.status import camera_rows

PERSON, EXPORTER, RECORDER0, RECORDER1, STREAMER, CAPTURE, TCP = range(1, 8)


class Scene:
    """A hub with people and processes, and a clock that stands still unless a test moves it."""

    def __init__(self, cameras=("cam0",)):
        self.router = Router(cameras)
        self.now_s = 100.0
        self.router.add_peer(PERSON, self.now_s)
        self.router.add_peer(TCP, self.now_s, trusted=False)

    def process(self, number, role, *commands, camera="", subscribe=(), since_ns=1):
        self.router.add_peer(number, self.now_s)
        hello = Hello(role=role, camera=camera, pid=number, commands=commands, subscribe=subscribe, since_ns=since_ns)
        return self.say(number, hello)

    def say(self, number, message, ident=None, event_id=None):
        return self.router.route(number, Received(message, ident, event_id), self.now_s)

    def replies(self, actions):
        return [a.message for a in actions if isinstance(a, Send) and isinstance(a.message, Reply)]


def test_a_command_goes_to_its_owner_and_the_answer_back_with_the_askers_id():
    scene = Scene()
    scene.process(EXPORTER, "exporter", "save")
    [ask] = scene.say(PERSON, Save(), "mine")
    assert (ask.peers, ask.message) == ((EXPORTER,), Save())
    answer = Reply(status="saved", text="Saved single full-resolution image: /x.jpg")
    assert scene.say(EXPORTER, answer, ask.id) == [Send((PERSON,), answer, "mine")]
    assert scene.say(EXPORTER, answer, ask.id) == [], "a second answer is nobody's"


def test_another_process_cannot_answer_in_the_owners_place():
    scene = Scene()
    scene.process(EXPORTER, "exporter", "save")
    scene.process(STREAMER, "streamer")
    [ask] = scene.say(PERSON, Save())
    assert scene.say(STREAMER, Reply(text="forged"), ask.id) == []


def test_owner_not_there_says_which_start_would_help():
    scene = Scene(("cam0", "cam1"))
    [reply] = scene.replies(scene.say(PERSON, Save()))
    assert reply.text == ("ERROR: exporter is not connected, so nobody answers save; try: shmcam start exporter")
    [reply] = scene.replies(scene.say(PERSON, Record(action="start", camera="cam1")))
    assert reply.text.endswith("try: shmcam start cam1:recorder-cam1")
    [reply] = scene.replies(scene.say(PERSON, Record(camera="cam9")))
    assert reply.text == "ERROR: no camera 'cam9'; cameras: cam0, cam1"


def test_a_per_camera_command_goes_to_that_camera_or_to_all_and_comes_back_as_one():
    scene = Scene(("cam0", "cam1"))
    scene.process(RECORDER0, "recorder", "record", camera="cam0")
    scene.process(RECORDER1, "recorder", "record", camera="cam1")
    [ask] = scene.say(PERSON, Record(action="start", camera="cam1"))
    assert ask.peers == (RECORDER1,)
    [ask] = scene.say(PERSON, Record(action="start"))
    assert ask.peers == (RECORDER0, RECORDER1)
    assert scene.say(RECORDER1, error("disk full", "disk_full"), ask.id) == []
    [done] = scene.say(RECORDER0, Reply(status="recording_started", text="recording a.mp4"), ask.id)
    assert done.message.text == "cam0: recording a.mp4\nERROR: cam1: disk full"
    assert (done.message.ok, done.message.status) == (False, "disk_full")
    assert done.message.data["cameras"]["cam0"]["status"] == "recording_started"


def test_an_owner_that_dies_or_takes_too_long_is_answered_for():
    scene = Scene()
    scene.process(EXPORTER, "exporter", "save")
    scene.say(PERSON, Save(), 1)
    [reply] = scene.replies(scene.router.remove_peer(EXPORTER))
    assert reply.text.startswith("ERROR: exporter went away before it answered")
    scene.process(EXPORTER, "exporter", "save")
    scene.say(PERSON, Save(), 2)
    assert scene.router.tick(scene.now_s + 29.0) == []
    [reply] = scene.replies(scene.router.tick(scene.now_s + 30.0))
    assert "did not answer save within 30 s" in reply.text
    assert scene.router.tick(scene.now_s + 90.0) == []


def test_an_asker_that_went_away_gets_nothing():
    scene = Scene()
    scene.process(EXPORTER, "exporter", "save")
    [ask] = scene.say(PERSON, Save())
    assert scene.router.remove_peer(PERSON) == []
    assert scene.say(EXPORTER, Reply(), ask.id) == []


def test_chunks_are_passed_on_before_the_reply():
    scene = Scene()
    scene.process(STREAMER, "streamer", "short_stream")
    [ask] = scene.say(PERSON, ShortStream(count=1), 9)
    chunk = Chunk(data=b"\x00\x00\x00\x00", end=True)
    assert scene.say(STREAMER, chunk, ask.id) == [Send((PERSON,), chunk, 9)]
    assert scene.say(EXPORTER, chunk, ask.id) == []


def test_events_reach_subscribers_and_settings_reach_every_process():
    scene = Scene()
    scene.process(RECORDER0, "recorder", subscribe=("night_began",))
    scene.process(EXPORTER, "exporter")
    night = NightBegan(camera="cam0")
    scene.say(PERSON, Subscribe(topics=("night",)))
    assert scene.say(EXPORTER, night) == [Send((PERSON, RECORDER0), night)]
    changed = SettingChanged(key="night.enable", new=False)
    assert scene.router.announce(changed) == [Send((EXPORTER, RECORDER0), changed)]


def test_a_requested_mode_reaches_that_cameras_capture_and_a_restarted_one():
    scene = Scene(("cam0", "cam1"))
    scene.process(CAPTURE, "capture", camera="cam0")
    scene.process(RECORDER1, "capture", camera="cam1")
    scene.process(EXPORTER, "analyzer")
    request = ModeRequested(camera="cam0", mode="still", exposure_us=200_000)
    assert scene.say(EXPORTER, request) == [Send((CAPTURE,), request)]
    scene.router.remove_peer(CAPTURE)
    assert Send((CAPTURE,), request) in scene.process(CAPTURE, "capture", camera="cam0")
    assert Send((RECORDER1,), request) not in scene.process(RECORDER1, "capture", camera="cam1")


def test_strangers_cannot_pose_as_processes():
    scene = Scene()
    for message in (NightBegan(camera="cam0"), Reply(), Heartbeat(role="capture")):
        [reply] = scene.replies(scene.say(PERSON, message))
        assert "only a process that said hello" in reply.text
    [reply] = scene.replies(scene.say(TCP, Hello(role="capture")))
    assert reply.status == "not_allowed"


@pytest.mark.parametrize("command", [Set(changes={"a.b": 1}), Subscribe()])
def test_the_trigger_port_takes_triggers_only(command):
    [reply] = Scene().replies(Scene().say(TCP, command))
    assert "is not for the trigger port" in reply.text


def test_previews_ask_the_streamer_for_the_most_anyone_wants_and_thin_it_for_the_others():
    scene = Scene()
    scene.process(STREAMER, "streamer", "preview")
    scene.router.add_peer(EXPORTER, scene.now_s)
    asked = scene.say(PERSON, Preview(fps=30.0, width=640))[-1]
    assert asked == Send((STREAMER,), Preview(camera="cam0", fps=30.0, width=640))
    scene.say(EXPORTER, Preview(fps=10.0))
    frame, sent = PreviewFrame(camera="cam0", jpeg=b""), []
    for _ in range(30):
        sent += [action.peers for action in scene.say(STREAMER, frame)]
        scene.now_s += 1 / 30
    assert sum(PERSON in peers for peers in sent) == 30
    assert sum(EXPORTER in peers for peers in sent) in range(9, 16)
    assert scene.router.remove_peer(PERSON)[-1].message == Preview(camera="cam0", fps=10.0, width=320)
    assert scene.router.remove_peer(EXPORTER)[-1].message.enabled is False


def test_a_streamer_that_comes_back_is_told_who_is_watching():
    scene = Scene()
    scene.say(PERSON, Preview(fps=5.0))
    assert scene.process(STREAMER, "streamer", "preview")[-1].message == Preview(camera="cam0", fps=5.0)


def test_hub_commands_are_answered_at_once_or_given_to_own_commands():
    scene = Scene()
    assert scene.say(PERSON, Ping(), 3) == [Send((PERSON,), Reply(status="pong", text="pong"), 3)]
    assert isinstance(scene.say(PERSON, Quit())[-1], Close)
    [work] = scene.say(PERSON, Status(), 4)
    assert isinstance(work, RunCommand)
    assert scene.router.add_own_reply(work.number, Reply(text="all well")) == [
        Send((PERSON,), Reply(text="all well"), 4)
    ]


def test_unreadable_bytes_are_answered_and_fatal_ones_end_the_connection():
    scene = Scene()
    refusal = Refused(error("malformed"), fatal=True)
    assert [type(a) for a in scene.router.route(PERSON, refusal, 0.0)] == [Send, Close]


def test_commands_under_way_are_bounded_for_one_connection_and_for_all():
    scene = Scene()
    scene.process(EXPORTER, "exporter", "save")
    for _ in range(PENDING_PER_CONNECTION_MAX):
        assert scene.say(PERSON, Save(), 1)[0].peers == (EXPORTER,)
    assert "under way" in scene.replies(scene.say(PERSON, Save(), 1))[0].text
    for number in range(1000, 1000 + PENDING_MAX):
        scene.router.add_peer(number, scene.now_s)
        actions = scene.say(number, Save(), 1)
    assert scene.replies(actions)[0].status == "busy"


def test_a_camera_added_while_the_hub_runs_counts_from_its_hello_on():
    scene = Scene()
    assert scene.replies(scene.say(PERSON, Record(camera="cam1")))[0].status == "unknown_camera"
    scene.process(RECORDER1, "recorder", "record", camera="cam1")
    assert scene.router.registry.cameras == ("cam0", "cam1")
    assert scene.say(PERSON, Record(camera="cam1"))[0].peers == (RECORDER1,)
    scene.router.remove_peer(RECORDER1)
    assert scene.router.registry.cameras == ("cam0",)


def test_of_two_that_claim_the_same_command_the_newer_is_asked():
    scene = Scene()
    scene.process(EXPORTER, "exporter", "save")
    scene.process(STREAMER, "exporter", "save")
    [ask] = scene.say(PERSON, Save())
    assert ask.peers == (STREAMER,)


def test_night_level_of_one_camera_is_worded_as_its_owner_said():
    scene = Scene()
    scene.process(EXPORTER, "analyzer", "night_level", camera="cam0")
    [ask] = scene.say(PERSON, NightLevel())
    text = "LEVEL=12.0 relevant threshold=40.0 dark_threshold: < 40.0 bright_threshold: > 80.0 STATUS=NIGHT"
    [done] = scene.say(EXPORTER, Reply(status="night", text=text), ask.id)
    assert done.message.text == text


def test_a_camera_that_supervisord_no_longer_has_is_no_camera_any_more():
    """Removed from config.toml and `supervisorctl update`d, its three programs stayed "missing" for ever."""
    scene = Scene(("cam0", "cam1", "cam2"))
    scene.process(STREAMER, "watchdog")
    programs = {"capture": "RUNNING", "capture-cam2": "STOPPED"}
    scene.say(STREAMER, Heartbeat(role="watchdog", pid=1, state="running", figures={"programs": programs}))
    assert scene.router.registry.cameras == ("cam0", "cam2"), "a stopped one is still one"
    scene.process(CAPTURE, "capture", camera="cam1")
    assert scene.router.registry.cameras == ("cam0", "cam2", "cam1")


def test_a_recorder_that_comes_in_the_middle_of_motion_is_told_of_it():
    scene = Scene(("cam0", "cam1"))
    began = MotionBegan(camera="cam1", captured_ns=5)
    scene.process(CAPTURE, "analyzer", camera="cam1")
    scene.say(CAPTURE, began)
    welcome, *sent = scene.process(RECORDER1, "recorder", "record", camera="cam1", subscribe=("motion_began",))
    assert isinstance(welcome.message, Reply) and sent == [Send((RECORDER1,), began)]
    assert len(scene.process(RECORDER0, "recorder", "record")) == 1, "of another camera"
    ended = MotionEnded(camera="cam1", captured_ns=9)
    scene.say(CAPTURE, ended)
    _, *sent = scene.process(RECORDER1, "recorder", "record", camera="cam1")
    assert sent == [Send((RECORDER1,), ended)]


def test_the_last_events_reach_a_process_that_connects_later():
    scene = Scene()
    began, beat = NightBegan(camera="cam0"), Heartbeat(role="analyzer", pid=CAPTURE)
    scene.process(CAPTURE, "analyzer")
    assert scene.say(CAPTURE, began, event_id=(CAPTURE, 500)) == scene.say(CAPTURE, beat) == []
    scene.now_s += 600
    assert scene.process(STREAMER, "streamer", subscribe=("night_ended",))[1:] == [], "not its topic"
    _, *sent = scene.process(RECORDER0, "recorder", subscribe=("all",), since_ns=499)
    assert sent == [Send((RECORDER0,), began, event_id=(CAPTURE, 500))], "no signs of life"
    assert scene.process(RECORDER1, "recorder", subscribe=("all",), since_ns=500)[1:] == [], "it started afterwards"


def test_an_event_that_is_sent_once_more_is_remembered_and_passed_on_once():
    scene = Scene()
    began, ended = NightBegan(camera="cam0"), NightEnded(camera="cam0")
    scene.process(CAPTURE, "analyzer")
    scene.process(RECORDER0, "recorder", subscribe=("night",))
    assert scene.say(CAPTURE, began, event_id=(CAPTURE, 500)) == [Send((RECORDER0,), began, event_id=(CAPTURE, 500))]
    assert scene.say(CAPTURE, began, event_id=(CAPTURE, 500)) == []
    assert scene.say(CAPTURE, ended, event_id=(CAPTURE, 501)) == [Send((RECORDER0,), ended, event_id=(CAPTURE, 501))]
    assert scene.router.registry.latest["night", "cam0"] == ended
    assert scene.say(CAPTURE, began) == [Send((RECORDER0,), began)], "without an id it is a new one"


def test_an_old_event_does_not_reach_who_came_after_it():
    """A hub that is new gets events of hours ago from processes that connect again."""
    scene = Scene()
    scene.process(CAPTURE, "analyzer")
    scene.process(RECORDER0, "recorder", subscribe=("night",), since_ns=400)
    scene.process(RECORDER1, "recorder", subscribe=("night",), since_ns=600)
    scene.say(PERSON, Subscribe(topics=("night",)))
    [sent] = scene.say(CAPTURE, NightBegan(camera="cam0"), event_id=(CAPTURE, 500))
    assert sent.peers == (RECORDER0,)


def test_of_a_flood_of_events_the_newest_are_kept_in_order():
    scene = Scene()
    scene.process(EXPORTER, "exporter")
    flood = [Saved(camera="cam0", path=f"/{number}.jpg", kind="jpg") for number in range(RECENT_EVENTS_MAX + 10)]
    for number, event in enumerate((*flood, NightBegan(camera="cam0"))):
        scene.say(EXPORTER, event, event_id=(EXPORTER, 1000 + number))
    _, *sent = scene.process(STREAMER, "streamer", subscribe=("all",))
    assert [send.message for send in sent] == [*flood[11:], NightBegan(camera="cam0")]


def test_a_new_capture_s_mode_is_not_the_old_one_s():
    scene = Scene()
    scene.process(CAPTURE, "capture", "detect", camera="cam0")
    changed = ModeChanged(camera="cam0", old="video", new="still")
    scene.say(CAPTURE, changed)
    scene.process(RECORDER0, "recorder", camera="cam0")
    assert scene.router.registry.latest["mode", "cam0"] == changed
    scene.router.remove_peer(CAPTURE)
    scene.process(CAPTURE, "capture", "detect", camera="cam0")
    assert ("mode", "cam0") not in scene.router.registry.latest, "until it tells, or its heartbeat does"


@pytest.mark.parametrize("first_back", [False, True])
def test_a_lost_camera_of_a_second_capture_ends_with_it(first_back):
    """`cam0 lost` stayed in the status after a second capture was refused and had ended, while cam0 ran."""
    scene, second = Scene(), 20
    scene.process(CAPTURE, "capture", camera="cam0")
    scene.say(CAPTURE, CameraFound(camera="cam0", source="v4l2"))
    scene.process(second, "capture", camera="cam0")
    scene.say(second, CameraLost(camera="cam0", reason="held by another process"))
    state = lambda: camera_rows(scene.router.registry)[0]["state"]  # noqa: E731
    assert state() == "lost"
    if first_back:
        scene.say(CAPTURE, CameraFound(camera="cam0", source="v4l2"))
    scene.router.remove_peer(second)
    assert state() == "found"
    scene.say(CAPTURE, CameraLost(camera="cam0", reason="unplugged"))
    scene.router.remove_peer(CAPTURE)
    assert state() == "lost"  # nobody says otherwise


@pytest.mark.parametrize(("state", "shown"), [("STOPPED", ("unknown", "")), ("BACKOFF", ("lost", "unplugged"))])
def test_a_lost_camera_is_lost_no_more_once_somebody_stopped_its_capture(state, shown):
    """It stayed `lost: unplugged` for as long as the service ran; between two starts that fail it is the truth."""
    scene, watchdog = Scene(), 21
    scene.process(watchdog, "watchdog")
    scene.process(CAPTURE, "capture", camera="cam0")
    scene.say(CAPTURE, CameraLost(camera="cam0", reason="unplugged"))
    scene.router.remove_peer(CAPTURE)
    scene.say(watchdog, Heartbeat(role="watchdog", figures={"programs": {"capture": state}}))
    row = camera_rows(scene.router.registry)[0]
    assert (row["state"], row["reason"]) == shown


def test_what_a_process_does_ends_with_it_and_what_it_saw_stays_if_it_lasts():
    """RECORDING stayed in the status for ever where a recorder was killed and the next one had nothing to record."""
    scene = Scene()
    scene.process(CAPTURE, "capture", "detect", camera="cam0")
    scene.process(EXPORTER, "analyzer", camera="cam0")
    scene.process(RECORDER0, "recorder", camera="cam0", subscribe=("motion",))
    scene.say(CAPTURE, CameraFound(camera="cam0", source="v4l2"))
    scene.say(EXPORTER, NightBegan(camera="cam0"))
    scene.say(EXPORTER, MotionBegan(camera="cam0", captured_ns=5 * 10**9))
    scene.say(RECORDER0, RecordingStarted(camera="cam0", path="/a.mp4"))
    row = lambda: {key: camera_rows(scene.router.registry)[0][key] for key in ("state", "night", "recording")}  # noqa: E731
    assert row() == {"state": "found", "night": True, "recording": "/a.mp4"}
    [ended] = scene.router.remove_peer(EXPORTER, 7 * 10**9)
    assert ended == Send((RECORDER0,), MotionEnded(camera="cam0", captured_ns=7 * 10**9, duration_s=2.0))
    assert row()["night"] is None
    scene.process(STREAMER, "analyzer", camera="cam0")
    assert row()["night"] is True, "it carries the night on"
    scene.say(STREAMER, Heartbeat(role="analyzer", camera="cam0", figures={"night": False}))
    assert row()["night"] is False, "or not"
    assert scene.router.remove_peer(STREAMER) == [], "no motion ends twice"
    scene.router.remove_peer(CAPTURE)
    scene.router.remove_peer(RECORDER0)
    scene.process(RECORDER0, "recorder", camera="cam0")
    assert row() == {"state": "unknown", "night": None, "recording": None}
