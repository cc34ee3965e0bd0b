"""WebSocket sessions: the pure rules, then the messages over a real socket."""

import asyncio
import base64
import contextlib
import gc
import struct
from socket import SO_LINGER, SOL_SOCKET

import pytest
from aiohttp import WSServerHandshakeError

from streamer.h264 import routes
from streamer.monitoring.throttle import Load
from streamer.websocket import connection
from streamer.websocket.connection import MESSAGES_PER_S
from streamer.websocket.session_state import RESUME_S, SessionLimit, SessionOptions, Sessions, WebSocketSession
from tests.streamer.h264.test_live import INIT_SEGMENT, piece
from tests.streamer.harness import UPGRADE, browsing, eventually, number_in, opened, picture, running, soon
from tests.streamer.monitoring.test_throttle import LIMITS
from tests.streamer.pictures.test_stream import run


def session(**more) -> WebSocketSession:
    return WebSocketSession(SessionOptions(**more), "cam0")


# ---- rules


def test_a_preset_says_everything_that_is_not_said():
    variant = SessionOptions(preset="low").to_variant(60.0)
    assert (variant.width, variant.quality, variant.fps) == (320, 60, 10.0)
    variant = SessionOptions(preset="low", width=640, quality=90, fps=2, gray=True, stack=4).to_variant(60.0)
    assert (variant.width, variant.quality, variant.fps, variant.gray, variant.stack) == (640, 90, 2.0, True, 4)


def test_no_session_gets_more_than_the_server_allows():
    assert SessionOptions(preset="full", fps=200).to_variant(15.0).fps == 15.0


def test_a_picture_is_given_once():
    one = session()
    assert one.take(0.0, 1.0) == "nothing_new"
    one.offer(picture(1))
    assert one.take(0.0, 1.0).frame_id == 1
    one.offer(picture(1))
    assert one.take(0.0, 1.0) == "nothing_new", "a repeat for Chromium is not a new picture"


def test_newer_pictures_replace_older_ones_and_are_counted():
    one = session()
    for number in (1, 2, 3):
        one.offer(picture(number))
    assert one.take(0.0, 1.0).frame_id == 3
    assert one.statistics.skipped == 2


def test_a_bandwidth_limit_holds_over_seconds():
    one = session(max_kbps=800.0)
    jpeg = b"x" * 10_000  # 80 kbit: ten a second
    sent = 0
    for step in range(1000):
        one.offer(picture(step, jpeg))
        sent += not isinstance(one.take(step / 100, 1.0), str)
    assert 100 <= sent <= 112, "10 s at 10 a second, and the burst of the first second"
    assert one.statistics.held_back == 1000 - sent


def test_without_a_limit_nothing_is_held_back():
    one = session()
    for step in range(100):
        one.offer(picture(step))
        assert not isinstance(one.take(step / 100, 1.0), str)
    assert one.statistics.held_back == 0


def test_a_busy_machine_slows_a_session_to_its_share():
    one = session(fps=10.0)
    sent = 0
    for step in range(1000):
        one.offer(picture(step))
        taken = one.take(step / 100, 0.25)
        sent += not isinstance(taken, str)
        assert not isinstance(taken, str) or taken == "busy"
    assert sent == pytest.approx(25, abs=2), "10 s at a quarter of 10 fps"


def test_no_signal_is_told_rather_than_an_old_picture_shown():
    one = session()
    one.offer(picture(7, signal=False))
    assert one.take(0.0, 1.0) == "no_signal"


def test_places_are_limited_and_sessions_nobody_is_connected_to_make_room():
    sessions = Sessions()
    first = sessions.create(SessionOptions(), "cam0", 2, 0.0)
    sessions.create(SessionOptions(), "cam0", 2, 0.0)
    with pytest.raises(SessionLimit, match="all 2 sessions are taken"):
        sessions.create(SessionOptions(), "cam0", 2, 0.0)
    sessions.disconnect(first, 1.0)
    sessions.create(SessionOptions(), "cam0", 2, 2.0)
    assert sessions.resume(first.key, 3.0) is None, "its place is taken"


def test_a_session_is_resumed_with_its_key_for_a_while_and_only_once():
    sessions = Sessions()
    one = sessions.create(SessionOptions(), "cam0", 2, 0.0)
    assert sessions.resume(one.key, 1.0) is None, "still connected"
    sessions.disconnect(one, 10.0)
    assert sessions.resume("wrong", 11.0) is None
    assert sessions.resume(one.key, 10.0 + RESUME_S) is one
    assert one.statistics.connections == 2
    sessions.disconnect(one, 100.0)
    assert sessions.resume(one.key, 101.0 + RESUME_S) is None


# ---- the messages


async def hear(socket, kind: str) -> dict:
    """The next message of this type; pictures and others are passed over."""
    while True:
        message = await soon(socket.receive())
        assert message.type.name in ("TEXT", "BINARY"), message
        if message.type.name == "TEXT" and (said := message.json())["type"] == kind:
            return said


def test_pictures_are_pushed_with_their_number_and_time(tmp_path):
    async def test():
        async with (
            running(tmp_path, fps=50) as server,
            browsing(server) as browser,
            browser.ws_connect("/ws") as socket,
        ):
            await socket.send_json({"type": "create", "preset": "full", "label": "bench 3"})
            said = await hear(socket, "session")
            assert said["camera"] == "cam0"
            assert said["capacity"] == {"sessions": 1, "most": 32}
            assert said["agreement"]["label"] == "bench 3"
            numbers = []
            for _ in range(5):
                data = (await socket.receive()).data
                number, utc_ns = struct.unpack(">QQ", data[:16])
                assert number_in(data[16:]) == number
                assert utc_ns > 1.7e18
                numbers.append(number)
            assert numbers == sorted(set(numbers))

    run(test())


def test_pictures_come_as_base64_for_those_who_want_text(tmp_path):
    async def test():
        async with (
            running(tmp_path, fps=50) as server,
            browsing(server) as browser,
            browser.ws_connect("/ws") as socket,
        ):
            await socket.send_json({"type": "create", "format": "base64"})
            frame = await hear(socket, "frame")
            assert number_in(base64.b64decode(frame["jpeg"])) == frame["frame_id"]

    run(test())


def test_in_pull_mode_each_request_is_answered_with_a_picture_or_no_frame(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser, browser.ws_connect("/ws") as socket:
            await socket.send_json({"type": "create", "mode": "pull", "format": "base64"})
            await hear(socket, "session")
            await socket.send_json({"type": "request_frame"})
            assert (await hear(socket, "no_frame"))["code"] == "nothing_new"
            server.camera.publish()
            await socket.send_json({"type": "request_frame"})
            assert (await hear(socket, "frame"))["frame_id"] == 1
            await socket.send_json({"type": "request_frame"})
            assert (await hear(socket, "no_frame"))["code"] == "nothing_new"
            await socket.send_json({"type": "statistics"})
            figures = await hear(socket, "statistics")
            assert (figures["sent"], figures["no_frame"]) == (1, 2)

    run(test())


def test_a_session_may_show_the_long_exposure(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser, browser.ws_connect("/ws") as socket:
            await socket.send_json({"type": "create", "exposure": "long", "stack": 4})
            assert "leave out stack" in (await hear(socket, "error"))["reason"]
            await socket.send_json({"type": "create", "exposure": "long", "mode": "pull", "format": "base64"})
            assert (await hear(socket, "session"))["agreement"]["exposure"] == "long"
            assert [variant.long for variant in server.camera.fanout.variants] == [True]
            server.camera.publish(signal=False, reason="export.long_exposure_s is 0")
            await socket.send_json({"type": "request_frame"})
            said = await hear(socket, "no_frame")
            assert (said["code"], said["reason"]) == ("no_signal", "export.long_exposure_s is 0")
            await socket.send_json({"type": "configure", "exposure": "live"})
            await hear(socket, "session")
            assert [variant.long for variant in server.camera.fanout.variants] == [False]

    run(test())


def test_a_session_that_is_pushed_hears_once_that_the_signal_is_gone(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser, browser.ws_connect("/ws") as socket:
            await socket.send_json({"type": "create", "format": "base64"})
            await hear(socket, "session")
            for _ in range(3):
                server.camera.publish(signal=False)
                await asyncio.sleep(0.02)
            assert (await hear(socket, "no_frame"))["code"] == "no_signal"
            server.camera.publish()
            said = (await socket.receive()).json()
            assert said["type"] == "frame", "no second no_frame in between"
            server.camera.publish(signal=False)
            assert (await hear(socket, "no_frame"))["code"] == "no_signal", "and again when it is gone again"

    run(test())


def test_sessions_are_listed(tmp_path):
    async def test():
        async with (
            running(tmp_path, fps=50) as server,
            browsing(server) as browser,
            browser.ws_connect("/ws") as socket,
        ):
            await socket.send_json({"type": "create", "label": "bench 3", "format": "base64"})
            await hear(socket, "frame")
            found = await (await browser.get("/api/v1/sessions")).json()
            assert found["most"] == 32
            one = found["sessions"][0]
            assert (one["label"], one["preset"], one["connected"]) == ("bench 3", "medium", True)
            assert one["statistics"]["sent"] >= 1
            assert "key" not in one, "with it anybody could take the session over"

    run(test())


def test_a_broken_connection_is_resumed_with_its_figures(tmp_path):
    async def test():
        async with running(tmp_path, fps=50) as server, browsing(server) as browser:
            async with browser.ws_connect("/ws") as socket:
                await socket.send_json({"type": "create", "format": "base64"})
                key = (await hear(socket, "session"))["key"]
                await hear(socket, "frame")
            await eventually(lambda: server.context.sessions.all[0].disconnected_s is not None)
            async with browser.ws_connect("/ws") as socket:
                await socket.send_json({"type": "resume", "key": key})
                assert (await hear(socket, "session"))["agreement"]["format"] == "base64"
                await hear(socket, "frame")
                await socket.send_json({"type": "statistics"})
                figures = await hear(socket, "statistics")
                assert figures["connections"] == 2
                assert figures["sent"] >= 2

    run(test())


def test_a_session_is_configured_while_it_runs(tmp_path):
    async def test():
        two = {"text": "[cameras.cam0]\n[cameras.cam1]\n", "cameras": ("cam0", "cam1")}
        async with running(tmp_path, **two, fps=50) as server:  # noqa: SIM117 - one line would be too long
            async with browsing(server) as browser, browser.ws_connect("/ws") as socket:
                await socket.send_json({"type": "create"})
                await hear(socket, "session")
                await socket.send_json({"type": "configure", "camera": "cam1", "preset": "low"})
                said = await hear(socket, "session")
                assert (said["camera"], said["agreement"]["preset"]) == ("cam1", "low")
                assert server.cameras["cam0"].fanout.viewers == 0
                assert [v.width for v in server.cameras["cam1"].fanout.variants] == [320]

    run(test())


def test_a_full_house_is_told(tmp_path):
    async def test():
        text = "[mjpeg_server]\nmax_sessions = 1\n"
        async with running(tmp_path, text) as server, browsing(server) as browser:  # noqa: SIM117
            async with browser.ws_connect("/ws") as first, browser.ws_connect("/ws") as second:
                await first.send_json({"type": "create"})
                await hear(first, "session")
                await second.send_json({"type": "create"})
                said = await hear(second, "error")
                assert said["code"] == "full"
                assert "max_sessions" in said["reason"]

    run(test())


def test_a_session_that_finds_no_place_leaves_nothing_behind(tmp_path):
    async def test():
        async with running(tmp_path, "[mjpeg_server]\nmax_variants = 1\n") as server, browsing(server) as browser:
            async with browser.ws_connect("/ws") as first, browser.ws_connect("/ws") as second:
                await first.send_json({"type": "create", "preset": "low"})
                await hear(first, "session")
                await second.send_json({"type": "create", "preset": "high"})
                assert "max_variants" in (await hear(second, "error"))["reason"]
                assert len(server.context.sessions.all) == 1
                await second.send_json({"type": "create", "preset": "low"})
                await hear(second, "session")
                await second.send_json({"type": "configure", "preset": "high"})
                assert "max_variants" in (await hear(second, "error"))["reason"]
                server.camera.publish()
                assert (await second.receive()).data[:8] == struct.pack(">Q", 1), "it goes on as before"
            await eventually(lambda: server.context.viewer_slots.streams == 0)
            assert server.context.viewer_slots.variants == 0

    run(test())


def test_a_session_is_closed_and_another_created_on_one_connection(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser, browser.ws_connect("/ws") as socket:
            for _ in range(3):
                await socket.send_json({"type": "create", "format": "base64"})
                await hear(socket, "session")
                number = server.camera.publish()
                assert (await hear(socket, "frame"))["frame_id"] == number
                await socket.send_json({"type": "close"})
                assert (await hear(socket, "closed"))["sent"] == 1
            assert server.context.sessions.all == ()

    run(test())


def test_a_busy_machine_is_told_with_its_reason(tmp_path):
    async def test():
        async with (
            running(tmp_path, fps=50) as server,
            browsing(server) as browser,
            browser.ws_connect("/ws") as socket,
        ):
            await socket.send_json({"type": "create"})
            await hear(socket, "session")
            server.context.session_throttle.update(Load(99.0, 0.0), LIMITS, 0.0)
            said = await hear(socket, "throttled")
            assert (said["share"], said["reason"]) == (0.5, "CPU load is 99 % (limit 90 %)")
            server.context.session_throttle.update(Load(5.0, 0.0), LIMITS, 100.0)
            assert (await hear(socket, "unthrottled"))["share"] == 1.0

    run(test())


def test_events_come_to_those_who_subscribe(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser, browser.ws_connect("/ws") as socket:
            await socket.send_json({"type": "subscribe"})
            await hear(socket, "subscribed")
            server.context.events.add("night_began", {"camera": "cam0", "score": 31.5})
            said = await hear(socket, "event")
            assert (said["event"], said["data"]["score"]) == ("night_began", 31.5)

    run(test())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("not json", "malformed"),
        ("[1]", "Expected `object`"),
        ("{}", "type must be one of create, resume"),
        ('{"type": "dance"}', "type must be one of"),
        ('{"type": "create", "preset": "huge"}', "Invalid enum value 'huge'"),
        ('{"type": "create", "fps": -1}', "Expected `float` >= 0"),
        ('{"type": "create", "colour": 1}', "unknown field `colour`"),
        ('{"type": "create", "camera": "cam9"}', "no camera 'cam9'; cameras: cam0"),
        ('{"type": "request_frame"}', "no session yet"),
        ('{"type": "resume", "key": 7}', "no session to resume"),
        ("[" * 2000, ""),
    ],
)
def test_nonsense_is_answered_with_what_would_make_sense(tmp_path, message, reason):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser, browser.ws_connect("/ws") as socket:
            await socket.send_str(message)
            said = await hear(socket, "error")
            assert reason in said["reason"]
            await socket.send_json({"type": "ping"})
            await hear(socket, "pong")

    run(test())


def test_a_message_that_is_too_long_ends_the_connection(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser, browser.ws_connect("/ws") as socket:
            await socket.send_str("x" * 10_000)
            message = await soon(socket.receive())
            assert message.type.name == "CLOSE"
            assert message.data == 1009

    run(test())


def test_a_client_that_never_stops_talking_is_cut_off(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser, browser.ws_connect("/ws") as socket:
            for _ in range(3 * MESSAGES_PER_S):
                await socket.send_json({"type": "ping"})
            assert (await hear(socket, "error"))["code"] == "too_fast"
            await eventually(lambda: not server.context.viewers.entries)

    run(test())


def test_clients_that_are_cut_off_while_they_are_served_are_no_error(tmp_path, caplog):
    """Each has a task that sends; what it finds on a dead connection is nothing for the log."""

    async def test():
        async with running(tmp_path, fps=200) as server:
            for _ in range(12):
                writer = (await opened(server, "/ws", UPGRADE))[3]
                for said in (b'{"type": "create", "preset": "full"}', b'{"type": "subscribe"}'):
                    writer.write(bytes((0x81, 0x80 | len(said), 0, 0, 0, 0)) + said)
            await eventually(lambda: server.camera.fanout.viewers == 12)
            for number, writer in enumerate(server.held):
                server.context.events.add("night_began", {"camera": "cam0"})
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()  # a reset, without a goodbye
                await asyncio.sleep(0.003 * (number % 4))
            await eventually(lambda: server.camera.fanout.viewers == 0)
            await eventually(lambda: not server.context.viewers.entries)
            gc.collect()  # asyncio complains of an unheard exception when its task goes
            await asyncio.sleep(0)

    run(test())
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_another_site_cannot_open_a_websocket(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            for path in ("/ws", "/ws/live"):
                with pytest.raises(WSServerHandshakeError) as refused:
                    await browser.ws_connect(path, origin="http://evil.example")
                assert refused.value.status == 403

    run(test())


@pytest.mark.parametrize("path", ["/ws", "/ws/live"])
def test_a_websocket_is_not_compressed_and_ends_when_pings_stay_unanswered(tmp_path, monkeypatch, path):
    monkeypatch.setattr(connection, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(routes, "HEARTBEAT_S", 0.2)

    async def test():
        async with running(tmp_path) as server:
            offered = f"{UPGRADE}Sec-WebSocket-Extensions: permessage-deflate\r\n"
            opening = asyncio.create_task(opened(server, path, offered))
            if path == "/ws/live":
                await eventually(lambda: server.camera.live_video.viewers)
                server.camera.live_video.deliver(1, INIT_SEGMENT, piece(1, key=True))
            status, headers, reader, _ = await soon(opening)
            assert " 101 " in status
            assert "sec-websocket-extensions" not in headers
            assert b"\x89\x00" in await soon(reader.read()), "a ping, and then the end"
            await eventually(lambda: not server.context.connections.open)
            assert not server.context.viewers.entries

    run(test())


def test_a_session_that_left_costs_no_encoding(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            async with browser.ws_connect("/ws") as socket:
                await socket.send_json({"type": "create"})
                await hear(socket, "session")
                assert server.camera.fanout.viewers == 1
                await socket.send_json({"type": "close"})
                assert "sent" in await hear(socket, "closed")
                assert server.camera.fanout.viewers == 0
            assert server.context.sessions.all == ()

    run(test())


def test_silent_websockets_give_their_places_back(tmp_path, monkeypatch):
    """256 of them, which only answered the heartbeats, took every connection for ever."""
    monkeypatch.setattr("streamer.websocket.connection.SILENT_S", 0.5)
    monkeypatch.setattr("streamer.websocket.connection.PULL_SILENT_S", 0.5)

    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            silent = await browser.ws_connect("/ws")

            async def ping_on() -> None:
                with contextlib.suppress(ConnectionError):
                    while True:  # pings of the protocol itself say nothing
                        await silent.ping()
                        await asyncio.sleep(0.1)

            pinging = asyncio.create_task(ping_on())
            talking = await browser.ws_connect("/ws")
            for _ in range(3):
                await talking.send_json({"type": "ping"})
                assert (await talking.receive_json())["type"] == "pong"
            pulling, pushed, subscribed = [await browser.ws_connect("/ws") for _ in range(3)]
            await pulling.send_json({"type": "create", "mode": "pull"})
            await pushed.send_json({"type": "create", "mode": "push"})
            await subscribed.send_json({"type": "subscribe"})
            assert (await pulling.receive_json())["type"] == "session"
            for socket in (silent, talking, pulling):
                error = await soon(socket.receive_json())
                assert (error["type"], error["code"]) == ("error", "silent")
                await soon(socket.receive())
                assert socket.closed
            pinging.cancel()
            assert len(server.context.viewers.entries) == 2
            assert not pushed.closed
            assert not subscribed.closed

    run(test())
