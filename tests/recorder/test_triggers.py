"""Which frames are recorded: decided without a clock, a camera or a disk."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from recorder.clips.clip import FOREVER, NS, ClipLimits, ClipOrder, folder_of
from recorder.settings import RecorderSettings
from recorder.triggers import Triggers

S = NS
LIMITS = ClipLimits(pre_ns=5 * S, post_ns=10 * S, event_ns=60 * S, rolling_ns=30 * S, session_ns=3600 * S)


def machine(limits: ClipLimits = LIMITS) -> Triggers:
    return Triggers(limits)


def wanted(triggers: Triggers, start_s: float, end_s: float, step_s: float = 0.5) -> list[tuple[float, int, str]]:
    """(time, file number, trigger) of each frame that is recorded."""
    found, at = [], start_s
    while at < end_s:
        order = triggers.decide(int(at * S))
        if order is not None:
            found.append((at, order.number, order.trigger))
        at += step_s
    return found


def test_a_session_has_exactly_the_frames_from_start_to_stop():
    triggers = machine()
    assert triggers.start(100 * S, "session", "manual", utc_ns=0)
    triggers.stop(110 * S)
    times = [at for at, _, _ in wanted(triggers, 95, 120)]
    assert times[0] == 100.0 and times[-1] == 109.5 and len(times) == 20
    assert not triggers.is_active


def test_a_second_start_is_refused_while_a_session_runs():
    triggers = machine()
    assert triggers.start(100 * S, "session", "manual", utc_ns=0)
    assert not triggers.start(101 * S, "session", "manual", utc_ns=0)


def test_a_stop_and_a_start_before_the_next_frame_are_two_recordings_with_every_frame():
    triggers = machine()
    triggers.start(0, "session", "manual", utc_ns=0)
    wanted(triggers, 0, 10)
    triggers.stop(20 * S)
    assert triggers.start(20 * S, "session", "manual", utc_ns=0)
    frames = wanted(triggers, 10, 30)
    assert [at for at, _, _ in frames] == [10 + n / 2 for n in range(40)]
    assert [number for _, number, _ in frames].count(1) == 20


def test_a_start_is_refused_while_a_session_with_a_duration_runs():
    triggers = machine()
    triggers.start(0, "session", "manual", utc_ns=0, duration_s=60)
    assert not triggers.start(30 * S, "session", "manual", utc_ns=0)
    assert triggers.start(60 * S, "session", "manual", utc_ns=0)


def test_a_session_with_a_duration_ends_by_itself():
    triggers = machine()
    triggers.start(100 * S, "session", "manual", utc_ns=0, duration_s=3)
    assert [at for at, _, _ in wanted(triggers, 100, 110)] == [100 + n / 2 for n in range(6)]
    assert not triggers.is_active


def test_a_long_session_is_cut_into_files_without_a_gap():
    triggers = machine(ClipLimits(0, 0, S, 30 * S, 10 * S))
    triggers.start(0, "session", "manual", utc_ns=0)
    frames = wanted(triggers, 0, 25)
    assert len(frames) == 50
    assert [sum(number == n for _, number, _ in frames) for n in (1, 2, 3)] == [20, 20, 10]


@pytest.mark.parametrize("kind", ["session", "rolling", "event"])
def test_a_file_whose_index_would_fill_the_memory_is_cut_without_a_gap(kind):
    """The recorder grew by 14 to 23 MB an hour: an mp4's index is in memory until it is closed."""
    triggers = machine(replace(LIMITS, pre_ns=0, post_ns=3600 * S, event_ns=7200 * S, rolling_ns=3600 * S, frames=20))
    if kind == "event":
        triggers.note_event(0, "command", utc_ns=0)
    else:
        triggers.start(0, kind, "manual", utc_ns=0)
    numbers = [number for _, number, _ in wanted(triggers, 0, 25)]
    assert [numbers.count(n) for n in sorted(set(numbers))] == [20, 20, 10]


@pytest.mark.parametrize(
    ("container", "on_close", "has_limit"),
    [
        ("mp4", "plain", True),
        ("mp4", "faststart", True),
        ("mp4", "fragmented", False),
        ("mkv", "plain", False),
        ("h264", "plain", False),
    ],
)
def test_only_files_with_an_index_in_memory_have_a_limit_of_frames(container, on_close, has_limit):
    limits = ClipLimits.of(RecorderSettings(container=container, on_close=on_close))
    assert limits.frames == (1 << 18 if has_limit else sys.maxsize)


def test_rolling_clips_have_the_configured_length():
    triggers = machine()
    triggers.start(0, "rolling", "rolling", utc_ns=0)
    numbers = [number for _, number, _ in wanted(triggers, 0, 90)]
    assert [numbers.count(n) for n in (1, 2, 3)] == [60, 60, 60]


def test_an_event_is_recorded_from_before_to_after_it():
    triggers = machine()
    triggers.note_event(100 * S, "command", utc_ns=0)
    assert triggers.start_ns == 95 * S
    times = [at for at, _, _ in wanted(triggers, 90, 120)]
    assert times[0] == 95.0 and times[-1] == 109.5
    assert not triggers.is_active


def test_events_that_touch_are_one_clip_and_others_are_two():
    triggers = machine()
    triggers.note_event(100 * S, "command", utc_ns=0)
    frames = wanted(triggers, 95, 108)
    triggers.note_event(108 * S, "motion", utc_ns=0)
    frames += wanted(triggers, 108, 130)
    assert {number for _, number, _ in frames} == {1}
    assert frames[-1][0] == 117.5
    triggers.note_event(140 * S, "motion", utc_ns=0)
    assert {number for _, number, _ in wanted(triggers, 130, 160)} == {2}


def test_what_happens_while_something_lasts_neither_splits_nor_shortens_its_clip():
    triggers = machine(replace(LIMITS, event_ns=600 * S))
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    frames = wanted(triggers, 95, 150)
    triggers.note_event(150 * S, "command", utc_ns=0, protect=True)
    frames += wanted(triggers, 150, 200)
    triggers.note_end(200 * S, "motion")
    frames += wanted(triggers, 200, 230)
    assert {number for _, number, _ in frames} == {1}
    assert frames[-1][0] == 209.5 and len(frames) == 2 * (209.5 - 95) + 1


def test_an_event_behind_the_present_one_costs_none_of_its_frames():
    """The encoder still works on the pre-roll when the next thing happens."""
    triggers = machine()
    triggers.note_event(100 * S, "command", utc_ns=0)
    frames = wanted(triggers, 95, 98)
    triggers.note_event(130 * S, "motion", utc_ns=0)
    frames += wanted(triggers, 98, 150)
    assert [at for at, number, _ in frames if number == 1] == [95 + n / 2 for n in range(30)]
    assert [at for at, number, _ in frames if number == 2] == [125 + n / 2 for n in range(30)]
    assert not triggers.is_active


def test_what_happens_after_the_longest_clip_is_another_clip():
    triggers = machine(replace(LIMITS, event_ns=12 * S))
    triggers.note_event(100 * S, "command", utc_ns=0)
    frames = wanted(triggers, 95, 106)
    triggers.note_event(108 * S, "command", utc_ns=0)  # told before the frame of that instant came
    frames += wanted(triggers, 106, 130)
    assert [at for at, number, _ in frames if number == 1][-1] == 106.5
    assert [at for at, number, _ in frames if number == 2] == [107 + n / 2 for n in range(16)]


def test_a_lasting_event_is_recorded_until_its_post_roll_is_over():
    triggers = machine()
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    frames = wanted(triggers, 95, 130)
    assert frames[-1][0] == 129.5
    triggers.note_end(130 * S, "motion")
    assert wanted(triggers, 130, 160)[-1][0] == 139.5
    assert not triggers.is_active


def test_an_event_that_never_ends_is_cut_off_and_counts_again_after_it_ended():
    triggers = machine()
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    assert wanted(triggers, 95, 300)[-1][0] < 95 + 60
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    assert not triggers.is_active, "told again, it is still the one that was cut off"
    triggers.note_end(310 * S, "motion")
    triggers.note_begin(320 * S, "motion", utc_ns=0)
    assert triggers.is_active


def test_motion_counts_again_although_the_end_of_the_last_one_was_never_told():
    """The analyzer died in the middle of it."""
    triggers = machine()
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    wanted(triggers, 95, 300)
    assert not triggers.is_active
    triggers.note_begin(300 * S, "motion", utc_ns=0)
    frames = wanted(triggers, 295, 310)
    triggers.note_end(310 * S, "motion")
    frames += wanted(triggers, 310, 340)
    assert frames[0][0] == 295.0 and frames[-1][0] == 319.5


def test_an_event_during_a_session_makes_no_second_file():
    triggers = machine()
    triggers.start(0, "session", "manual", utc_ns=0)
    frames = wanted(triggers, 0, 50)
    triggers.note_event(50 * S, "motion", utc_ns=0)
    frames += wanted(triggers, 50, 100)
    assert {number for _, number, _ in frames} == {1}
    assert {trigger for _, _, trigger in frames} == {"manual"}


def test_an_event_that_began_before_a_resumed_session_makes_no_second_file_either():
    """The hub tells a recorder that comes back of motion that goes on; what was before is on disk."""
    triggers = machine()
    triggers.resumed_ns = 100 * S
    triggers.start(100 * S, "rolling", "rolling", utc_ns=0)
    triggers.note_begin(97 * S, "motion", utc_ns=0)
    assert triggers.start_ns == 100 * S
    frames = wanted(triggers, 90, 120)
    assert frames[0][0] == 100.0 and len({number for _, number, _ in frames}) == 1
    assert {trigger for _, _, trigger in frames} == {"motion"}


def test_an_event_marks_the_rolling_clip_it_falls_into():
    triggers = machine()
    triggers.start(0, "rolling", "rolling", utc_ns=0)
    wanted(triggers, 0, 40)
    triggers.note_event(40 * S, "motion", utc_ns=0)
    assert {trigger for _, _, trigger in wanted(triggers, 40, 60)} == {"motion"}, "to the end of the file"
    assert {trigger for _, _, trigger in wanted(triggers, 60, 90)} == {"rolling"}


def test_a_second_event_takes_nothing_of_the_first_ones_mark_away():
    """A protected clip into which motion fell later was no longer protected."""
    triggers = machine()
    triggers.start(0, "rolling", "rolling", utc_ns=0)
    triggers.note_event(5 * S, "command", utc_ns=0, label="owl", protect=True)
    wanted(triggers, 5, 20)
    triggers.note_event(20 * S, "motion", utc_ns=0)
    orders = [triggers.decide(at * S) for at in range(20, 30)]
    assert {(order.trigger, order.label, order.protect) for order in orders} == {("command", "owl", True)}
    assert len({id(order) for order in orders}) == 1, "what is taken in one pass has one order"


def test_a_session_that_somebody_ordered_is_protected_by_an_event_and_stays_what_it_is():
    triggers = machine()
    triggers.start(0, "session", "manual", utc_ns=0)
    triggers.note_event(5 * S, "command", utc_ns=0, protect=True)
    order = triggers.decide(5 * S)
    assert (order.kind, order.trigger, order.protect) == ("session", "manual", True)


def test_stop_ends_a_lasting_event_too():
    triggers = machine()
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    wanted(triggers, 95, 105)
    assert triggers.stop(105 * S)
    assert wanted(triggers, 105, 200) == []
    assert not triggers.stop(200 * S)


def test_an_event_that_outlives_a_session_goes_on_in_its_own_clip():
    triggers = machine()
    triggers.start(0, "session", "manual", utc_ns=0, duration_s=100)
    wanted(triggers, 0, 99)
    triggers.note_event(99 * S, "motion", utc_ns=0)
    frames = wanted(triggers, 99, 120)
    assert [trigger for _, _, trigger in frames].count("manual") == 2
    assert frames[-1][0] == 108.5 and frames[-1][2] == "motion"


def test_two_cameras_told_at_different_moments_record_the_same_instants():
    one, two = machine(), machine()
    one.start(100 * S, "session", "manual", utc_ns=0)
    [two.decide(at * S // 30) for at in range(3000, 3100)]
    two.start(100 * S, "session", "manual", utc_ns=0)
    one.stop(104 * S)
    two.stop(104 * S)
    assert wanted(one, 99, 110) == wanted(two, 99, 110)


def test_a_step_of_the_wall_clock_begins_another_file_and_a_slew_does_not():
    triggers = machine()
    triggers.start(0, "session", "manual", utc_ns=0)
    offsets = {0: 0, 10: 500, 20: 1500, 30: 1500 + 3_600_000, 40: -86_400_000, 50: -86_400_000}
    orders = [triggers.decide(at * S, milliseconds * 1_000_000) for at, milliseconds in offsets.items()]
    assert [order.number for order in orders] == [1, 1, 1, 2, 3, 3]
    assert [order.because for order in orders] == ["next file"] * 3 + ["the clock was set"] * 3
    assert {order.start_ns for order in orders} == {0}, "still one recording"
    assert [triggers.decide(at * S).number for at in (60, 3639, 3640)] == [3, 3, 4], "the new file has its full length"


def test_a_step_of_the_wall_clock_cuts_an_event_but_not_its_length():
    triggers = machine()
    triggers.note_event(100 * S, "command", utc_ns=0)
    assert triggers.decide(100 * S, 0).number == 1
    assert triggers.decide(101 * S, -3600 * S).number == 2
    assert [at for at, _, _ in wanted(triggers, 102, 120)][-1] == 109.5


def test_a_step_of_the_wall_clock_between_two_recordings_is_no_matter():
    triggers = machine()
    triggers.note_event(100 * S, "command", utc_ns=0)
    triggers.decide(100 * S, 0)
    triggers.expire(200 * S)
    triggers.note_event(300 * S, "command", utc_ns=0)
    assert triggers.decide(300 * S, 3600 * S) == triggers.event.order
    assert triggers.event.order.because == "next file" and triggers.event.order.number == 2


def test_limits_come_from_the_users_keys():
    limits = ClipLimits.of(RecorderSettings(pre_roll_s=1.5, recording_duration_minutes=2))
    assert limits.pre_ns == 1_500_000_000 and limits.rolling_ns == 120 * NS


def test_an_event_clip_that_would_end_before_its_event_is_refused():
    with pytest.raises(ValueError, match="longer than pre_roll_s"):
        RecorderSettings(pre_roll_s=20.0, max_event_s=20.0)


STEP = st.tuples(st.sampled_from(["start", "stop", "happened", "began", "ended", "frames"]), st.integers(1, 40))


@given(st.lists(STEP, max_size=40))
def test_whatever_happens_files_are_contiguous_and_bounded(steps):
    """No frame goes back to an earlier file, no event clip outlives its guard, and everything ends after a stop."""
    triggers, now, spans = machine(), 0, {}
    for what, seconds in steps:
        if what == "frames":
            for _ in range(seconds):
                now += S
                order = triggers.decide(now)
                if order is not None:
                    assert order.number >= max(spans, default=0)
                    spans.setdefault(order.number, (now, order.kind))
                    start, kind = spans[order.number]
                    limit = {"session": 3600, "rolling": 30, "event": 60}[kind]
                    assert now - start <= limit * S
        elif what == "start":
            triggers.start(now, "session" if seconds % 2 else "rolling", "manual", utc_ns=0)
        elif what == "stop":
            triggers.stop(now)
        elif what == "happened":
            triggers.note_event(now, "command", utc_ns=0)
        elif what == "began":
            triggers.note_begin(now, "motion", utc_ns=0)
        else:
            triggers.note_end(now, "motion")
    triggers.stop(now)
    assert triggers.decide(now + 1) is None
    assert not triggers.is_active


def test_an_order_has_what_was_asked_for():
    triggers = machine()
    assert (triggers.recording, triggers.session, triggers.event, list(triggers.events)) == (None, None, None, [])
    assert (triggers.start_ns, triggers.session_stop_ns, triggers.is_active) == (FOREVER, FOREVER, False)
    assert triggers.start(100 * S, "session", "manual", utc_ns=77, label="owl", protect=True, duration_s=2.5)
    order = ClipOrder(1, "session", "manual", 100 * S, 77, "owl", True)
    assert triggers.recording == triggers.session == order == triggers.decide(100 * S)
    assert (triggers.start_ns, triggers.session_stop_ns) == (100 * S, 102_500_000_000)
    triggers.note_event(200 * S, "motion", utc_ns=88, label="fox", protect=True)
    assert triggers.event.order == ClipOrder(2, "event", "motion", 195 * S, 88, "fox", True)
    assert triggers.recording == order, "the session comes first"
    assert triggers.decide(195 * S) == triggers.event.order == triggers.recording
    assert triggers.session is None
    triggers.start(300 * S, "rolling", "auto", utc_ns=0)
    assert triggers.session == ClipOrder(3, "rolling", "auto", 300 * S, 0, "", False)
    triggers.note_begin(400 * S, "motion", utc_ns=99)
    assert triggers.event.order == ClipOrder(4, "event", "motion", 395 * S, 99)
    assert triggers.event.lasting == {"motion": 400 * S}


def test_of_events_that_touch_the_first_label_and_any_protection_count():
    triggers = machine()
    triggers.note_event(100 * S, "command", utc_ns=1)
    triggers.note_event(101 * S, "motion", utc_ns=2, label="fox", protect=True)
    triggers.note_event(102 * S, "motion", utc_ns=3, label="owl")
    assert triggers.event.order == ClipOrder(1, "event", "command", 95 * S, 1, "fox", True)


def test_the_label_of_an_event_does_not_move_the_next_files_into_another_folder():
    """A size that changed during `record trigger label=owl` put the rest of the session into session_…_owl."""
    during_session, alone = machine(), machine()
    during_session.start(100 * S, "session", "manual", utc_ns=0)
    alone.note_event(110 * S, "motion", utc_ns=0)
    for triggers in (during_session, alone):
        folder = folder_of(Path("r"), "cam0", triggers.decide(109 * S), "session")
        triggers.note_event(110 * S, "command", utc_ns=0, label="owl")
        order = triggers.decide(111 * S)
        assert order.label == "owl" and folder_of(Path("r"), "cam0", order, "session") == folder


def test_events_touch_up_to_the_instant_at_which_the_earlier_one_ends():
    for at_ns, events in ((115 * S, 1), (115 * S + 1, 2)):  # with a pre-roll of 5 s behind a post-roll of 10 s
        triggers = machine()
        triggers.note_event(100 * S, "command", utc_ns=0)
        triggers.note_event(at_ns, "command", utc_ns=0)
        assert len(triggers.events) == events
    for at_ns, events in ((155 * S - 1, 1), (155 * S, 2)):  # 60 s after its pre-roll an event is cut
        triggers = machine()
        triggers.note_begin(100 * S, "motion", utc_ns=0)
        triggers.note_event(at_ns, "command", utc_ns=0)
        assert len(triggers.events) == events


def test_whether_frames_of_an_order_may_still_come():
    triggers = machine()
    triggers.start(100 * S, "session", "manual", utc_ns=0)
    triggers.note_event(200 * S, "motion", utc_ns=0)
    session, event = triggers.session, triggers.event.order
    assert triggers.is_on(session) and triggers.is_on(event)
    assert triggers.is_on(dataclasses.replace(session, number=7)), "a later file of it"
    assert not triggers.is_on(dataclasses.replace(session, start_ns=99 * S))
    triggers.stop(205 * S)
    assert triggers.is_on(session) and triggers.is_on(event), "frames from before may still come"
    triggers.expire(205 * S)
    assert not triggers.is_on(session) and not triggers.is_on(event)


def test_a_stop_ends_all_at_once_and_prolongs_nothing():
    triggers = machine()
    triggers.start(0, "session", "manual", utc_ns=0, duration_s=50)
    triggers.note_event(40 * S, "command", utc_ns=0)
    triggers.note_event(100 * S, "command", utc_ns=0)
    assert triggers.stop(70 * S)
    assert triggers.session_stop_ns == 50 * S, "it would have ended before"
    assert [event.end_ns for event in triggers.events] == [50 * S, 70 * S]
    assert triggers.stop(71 * S), "it has not been seen to end"
    assert [event.end_ns for event in triggers.events] == [50 * S, 70 * S]


def test_a_motion_that_a_stop_ended_is_not_begun_again_by_its_repetition():
    triggers = machine()
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    triggers.stop(105 * S)
    triggers.expire(106 * S)
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    assert not triggers.is_active
    triggers.note_begin(110 * S, "motion", utc_ns=0)
    assert triggers.event.lasting == {"motion": 110 * S}
    triggers.stop(111 * S)
    triggers.expire(112 * S)
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    assert triggers.is_active, "the last one only is kept"


def test_the_end_of_one_source_leaves_the_other_lasting():
    triggers = machine(replace(LIMITS, event_ns=600 * S))
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    triggers.note_begin(101 * S, "door", utc_ns=0)
    triggers.note_end(120 * S, "motion")
    assert (triggers.event.lasting, triggers.event.end_ns) == ({"door": 101 * S}, 130 * S)
    triggers.note_end(125 * S, "window")
    assert triggers.event.end_ns == 130 * S, "which never began"
    assert wanted(triggers, 95, 200)[-1][0] == 199.5
    triggers.note_end(200 * S, "door")
    assert triggers.event.end_ns == 210 * S


def test_nothing_prolongs_an_event_beyond_its_cut():
    triggers = machine(replace(LIMITS, event_ns=20 * S))
    triggers.note_begin(100 * S, "motion", utc_ns=0)
    triggers.note_end(114 * S, "motion")
    assert triggers.event.end_ns == triggers.event.latest_ns == 115 * S
    triggers.event.prolong(101 * S)
    assert triggers.event.end_ns == 115 * S


def test_an_event_of_a_recorder_before_goes_on_under_a_number_of_this_one():
    earlier, triggers = machine(), machine()
    earlier.note_begin(100 * S, "motion", utc_ns=5)
    event = earlier.event
    triggers.start(0, "session", "manual", utc_ns=0, duration_s=1)
    triggers.resume(event)
    assert triggers.event is event
    assert event.order == ClipOrder(2, "event", "motion", 95 * S, 5)


@pytest.mark.parametrize(("step_ns", "number"), [(2 * S - 1, 1), (2 * S, 2), (-2 * S + 1, 1), (-2 * S, 2)])
def test_the_wall_clock_is_compared_with_the_first_one_known_of_the_file(step_ns, number):
    triggers = machine()
    triggers.start(0, "session", "manual", utc_ns=0)
    offsets = (None, 7 * S, None, 7 * S + step_ns)
    assert [triggers.decide(at, offset).number for at, offset in enumerate(offsets)] == [1, 1, 1, number]
    assert triggers.decide(5, 7 * S + step_ns).number == number, "and then with that of the new file"


def test_a_file_is_full_at_its_length_and_at_its_frames_and_counts_both_anew():
    triggers = machine(replace(LIMITS, session_ns=10 * S, frames=3))
    triggers.start(0, "session", "manual", utc_ns=0)
    times = [0, 1, 2, 3, 4, 13 * S + 2, 13 * S + 3, 14 * S, 23 * S + 2]
    assert [triggers.decide(at).number for at in times] == [1, 1, 1, 2, 2, 3, 3, 3, 4]


def test_the_mark_of_an_event_ends_with_its_file_and_begins_again_in_the_next():
    triggers = machine(replace(LIMITS, rolling_ns=10 * S))
    triggers.start(0, "rolling", "rolling", utc_ns=0)
    triggers.note_begin(5 * S, "motion", utc_ns=0)
    marks = [triggers.decide(at * S) for at in range(0, 30, 2)]
    assert {(order.number, order.trigger) for order in marks} == {(1, "motion"), (3, "motion"), (4, "motion")}
    triggers.note_end(30 * S, "motion")
    orders = [triggers.decide(at * S) for at in (30, 39, 40, 49, 50)]
    assert [order.number for order in orders] == [5, 5, 6, 6, 7], "2 is the event's own"
    assert [order.trigger for order in orders] == ["motion"] * 2 + ["rolling"] * 3
