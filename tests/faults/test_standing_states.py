"""A state ends with what caused it: each place that remembers one, and the test that sees it go again.

The places are found in the code: attributes with names such as `trouble`, `problem`, `state` that a method sets, and
what the hub keeps of events and concludes from silence. One that is new needs a line here, and a test that causes it,
ends the cause, and waits for the state to be gone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from shmcam.control.messages import RETAINED
from shmcam.mqtt.camera_state import BROKEN_STATES
from tests.faults.test_matrix import HOME, PACKAGES, is_test

NAMES = re.compile(
    r"trouble|problem|reason|shortage|failing|refus|_low$|left_out|stall|pressure|silent|away|unanswered"
    r"|damaged|broken|blocked|missing|connected|proven|slow|(^|_)(state|status|lost)$"
)

SEEN_TO_GO = """
capture/test_faults.py::test_a_camera_that_fails_while_it_runs_is_reported_within_3_s_and_comes_back
    capture/status.py:CaptureStatus._state capture/status.py:CaptureStatus._reason
capture/test_faults.py::test_a_camera_absent_at_boot_is_waited_for_and_frames_come_within_5_s_of_its_arrival
    capture/status.py:CaptureStatus._trouble
capture/test_faults.py::test_swap_pressure_slows_then_pauses_then_ends
    capture/desired_request.py:DesiredRequest.pressure
capture/test_decisions.py::test_a_ring_that_others_left_no_room_for_gets_its_size_when_they_are_gone
    capture/rings.py:Rings._too_small
shm_ring/test_live.py::test_a_segment_that_cannot_be_understood_is_no_problem_any_more_once_it_is_gone
    shm_ring/live_ring.py:LiveRing.problem
analyzer/plugins/test_plugins.py::test_a_plugin_killed_from_outside_comes_back
    analyzer/plugins/host.py:Plugin.state
analyzer/night/test_days.py::test_one_day_of_every_scenario_switches_as_often_as_the_sky_and_the_first_service_flaps
    analyzer/night/decision.py:NightSwitch.state
exporter/test_all_day.py::test_a_timelapse_is_in_trouble_as_long_as_its_disk_refuses
    exporter/continuous/follower.py:CameraFollower.trouble
exporter/test_loop.py::test_a_session_log_goes_on_after_its_disk_refused_and_after_its_folder_was_removed
    exporter/session_log_collector.py:SessionLogs.lost
exporter/test_loop.py::test_what_is_wrong_with_folders_and_library_ends_when_it_is_mended
    exporter/disk_monitor.py:DiskMonitor.library_trouble exporter/disk_monitor.py:DiskMonitor.folder_trouble
recorder/clips/test_disk.py::test_room_that_could_not_be_made_is_no_trouble_any_more_once_there_is_some
    shmcam/library/catalogue.py:Catalogue.trouble
recorder/clips/test_disk.py::test_a_refused_recording_leaves_no_trouble_once_it_is_stopped
    recorder/clips/writer.py:RetryState.trouble
shmcam/hooks/test_delivery_queue.py::test_the_trouble_ends_with_room_although_no_event_comes
    shmcam/hooks/delivery_queue.py:DeliveryQueue.problem
shmcam/hooks/test_process.py::test_a_server_that_is_away_and_a_kill_lose_nothing
    shmcam/hooks/delivery_thread.py:DeliveryThread.is_failing
shmcam/mqtt/test_broker.py::test_no_event_is_lost_over_restarts_of_the_broker_up_to_the_bound
    shmcam/mqtt/broker_connection.py:BrokerLink.is_connected shmcam/mqtt/broker_connection.py:BrokerLink.reason
shmcam/mqtt/test_broker.py::test_a_state_that_is_too_long_is_told_until_it_fits_and_an_event_is_no_state
    shmcam/mqtt/broker_connection.py:BrokerLink._left_out
shmcam/mqtt/test_broker.py::test_a_dead_hub_leaves_the_device_there_and_its_cameras_not
    shmcam/mqtt/loop.py:MqttLoop._status
shmcam/rtsp_publish/test_publish.py::test_a_server_that_was_away_is_no_reason_any_more_while_no_frames_come
    shmcam/rtsp_publish/publisher.py:Publisher.status
shmcam/upload/test_stores.py::test_trouble_ends_with_its_cause_although_nothing_waits_any_more
    shmcam/upload/uploader.py:Uploader.state shmcam/upload/uploader.py:Uploader.trouble
streamer/monitoring/test_throttle.py::test_the_rate_does_not_swing
    streamer/monitoring/throttle.py:Throttle.reason
streamer/monitoring/test_load.py::test_sessions_slow_down_on_a_busy_machine_say_why_and_resume
    streamer/websocket/sender.py:WebSocketSender._reason_sent
streamer/test_process.py::test_viewers_stay_while_the_camera_is_away_and_are_told
    streamer/pictures/feed.py:Feed.status
exporter/test_long_exposure.py::test_a_run_folder_that_refuses_is_told_once_and_the_picture_comes_when_it_does_not
    exporter/continuous/long_exposure.py:LongExposure.trouble
streamer/pictures/test_long.py::test_the_long_exposure_is_streamed_beside_live_video
    streamer/pictures/long_exposure_reader.py:LongExposureReader.problem
shmcam/hub/test_hub.py::test_what_a_process_does_ends_with_it_and_what_it_saw_stays_if_it_lasts
    retained:camera retained:night retained:motion retained:recording
shmcam/hub/test_hub.py::test_a_new_capture_s_mode_is_not_the_old_one_s
    retained:mode
analyzer/test_process.py::test_a_person_can_overrule_and_give_back
    retained:mode_requested
shmcam/hub/test_server.py::test_a_loop_that_hangs_is_silent_until_it_goes_on
    process:silent
test_control.py::test_events_tell_of_a_process_that_dies_and_comes_back
    process:missing
shmcam/watchdog/test_watchdog.py::test_what_supervisord_gave_up_is_started_again
    process:EXITED process:BACKOFF process:FATAL
"""
"""Tests, and below each the places whose state it causes and sees to go."""

NO_STATES = """
Only the log tells of it, once.
    shmcam/control/client_connection.py:ClientConnection._disconnected_s
    shmcam/mqtt/loop.py:MqttLoop._image_problem
    shmcam/watchdog/watchdog.py:Watchdog._is_unanswered shmcam/watchdog/watchdog.py:Watchdog._camera_trouble
    analyzer/keogram/daily_keogram.py:KeogramKeeper._problem analyzer/keogram/keogram_thread.py:KeogramThread._left_out
It ends with its object: a connection, a file, a call, a child.
    shmcam/cli/pipe/pipe_output.py:PipeOutput.damaged shmcam/control/client.py:Delegation._problem
    shmcam/control/codec.py:Decoder._refused_lines shmcam/hub/connection.py:PeerConnection._is_lost
    shmcam/hub/connection.py:PeerConnection._refusals shmcam/hub/trigger_port_access.py:TokenCheck.is_refused
    shmcam/mqtt/broker_connection.py:BrokerLink._connected_s
    shmcam/mqtt/broker_connection.py:BrokerLink._refused
    shmcam/mqtt/broker_connection.py:BrokerClient.refusal shmcam/mqtt/broker_connection.py:BrokerClient._refusals
    shmcam/upload/rclone.py:Rclone.reason shmcam/upload/rclone.py:_Said.reason
    shmcam/video/disk_file.py:DiskFile.broken capture/sources/mjpeg/http_client.py:HttpClient._connected_to
    recorder/clips/clip_file.py:ClipFile.broken streamer/h264/viewers.py:HttpVideoViewer._blocked
    streamer/http/connection.py:HttpConnection._is_refused streamer/http/connection.py:HttpConnection.refused_open
    streamer/pictures/mjpeg.py:MjpegViewer._blocked streamer/h264/live_video.py:LiveVideo.state
    streamer/websocket/session_state.py:Sessions.disconnected_s
Each answer or frame replaces it.
    shmcam/cli/console/loop.py:ConsoleSession.problem shmcam/cli/console/loop.py:ConsoleSession.status
    shmcam/cli/console/desktop_window.py:CameraFeed.problem
It counts what was.
    shm_ring/live_ring.py:RingCursor.lost shmcam/mqtt/outbox.py:Outbox.lost
    capture/sources/mjpeg/picture_scanner.py:PictureScanner._lost capture/sources/mjpeg/source.py:HttpSource._lost
    capture/sources/mjpeg/source.py:_Reader._lost capture/sources/picamera2/source.py:Arrivals._damaged
    capture/sources/pyav_stream.py:_Reader._damaged capture/sources/video_decoder.py:VideoDecoder.damaged
    capture/sources/video_file.py:FileSource._damaged
    exporter/job_queue.py:JobQueue.refused recorder/clips/clip_file.py:Gaps.lost
    recorder/frame_pipeline.py:FramePipeline.lost streamer/http/connection.py:ConnectionTable.refused
It decides what the next try does.
    shmcam/library/catalogue.py:Catalogue.away exporter/pictures/save.py:PictureSaver._is_refused
    recorder/clips/storage.py:Storage.was_refused recorder/clips/writer.py:ClipWriter.was_refused
    recorder/clips/writer.py:ClipWriter.refused_file_bytes
    recorder/clips/writer.py:RetryState._is_proven
    recorder/commands.py:RecordCommands.refusal
"""
"""Reasons why a place is no state that anybody is shown, and below each the places."""


def read_table(text: str) -> dict[str, list[str]]:
    """Returns the indented words by the line above them."""
    table: dict[str, list[str]] = {}
    title = ""
    for line in text.strip().splitlines():
        title = title if line.startswith(" ") else line
        table.setdefault(title, []).extend(line.split() if line.startswith(" ") else [])
    return table


def find_places() -> Iterator[str]:
    """Yields each attribute of such a name that a method other than `__init__` sets."""
    for path in (path for package in PACKAGES for path in (HOME / package).rglob("*.py")):
        for made in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)):
            methods = [node for node in made.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            for node in (node for method in methods if method.name != "__init__" for node in ast.walk(method)):
                is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                if is_set and NAMES.search(node.attr):
                    yield f"{path.relative_to(HOME)}:{made.name}.{node.attr}"


def test_each_state_has_a_test_that_sees_it_go_again():
    seen = read_table(SEEN_TO_GO)
    found = {*find_places(), *(f"retained:{kind}" for kind in RETAINED.values())}
    found |= {f"process:{state}" for state in BROKEN_STATES} | {"capture/rings.py:Rings._too_small"}  # a set: add()
    known = [place for places in (*seen.values(), *read_table(NO_STATES).values()) for place in places]
    assert sorted(found - set(known)) == [], "new: name the test that causes it, ends the cause and sees it go"
    assert sorted(set(known) - found) == [], "gone"
    assert len(known) == len(set(known)), "twice"
    assert [test for test in seen if not is_test(test)] == []
