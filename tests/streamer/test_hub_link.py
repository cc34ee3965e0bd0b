"""What the streamer does for the hub: shortstream byte by byte, previews, viewers."""

import asyncio
import struct
from types import SimpleNamespace

from shmcam.control.messages import CHUNK_BYTES_MAX, Chunk, Preview, PreviewFrame, Reply, ShortStream, Status
from shmcam.runtime.stop import Stop
from streamer import shortstream
from streamer.hub_link import SHORT_STREAMS_MAX, HubLink, list_viewers
from streamer.loop import measure_load
from streamer.preview_messages import Previews
from streamer.shortstream import send_short_stream
from tests.streamer.harness import browsing, eventually, jpeg_of, number_in, opened, picture, running, soon
from tests.streamer.pictures.test_stream import run


def pictures_in(data: bytes) -> tuple[list[bytes], bytes]:
    """Read (u32 length, JPEG)* u32 0; returns the pictures and what is left."""
    found = []
    while (size := struct.unpack_from(">I", data)[0]) > 0:
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found, data[4:]


def test_a_short_stream_is_lengths_and_pictures_then_zero_then_the_sum(tmp_path):
    async def test():
        async with running(tmp_path, fps=50) as server:
            answers = []
            command = ShortStream(count=3)
            await send_short_stream(
                server.context, server.camera.camera, command, lambda one: answers.append(one) or True
            )
            chunks = [one for one in answers if isinstance(one, Chunk)]
            assert all(len(one.data) <= CHUNK_BYTES_MAX for one in chunks)
            assert [one.end for one in chunks][-1]
            found, rest = pictures_in(b"".join(one.data for one in chunks))
            numbers = [number_in(one) for one in found]
            assert numbers == sorted(set(numbers))
            assert len(numbers) == 3
            assert rest == b""
            reply = answers[-1]
            assert isinstance(reply, Reply)
            assert reply.text.startswith("STREAM_DONE: sent=3, skipped=")
            assert reply.data["available"] >= 3
            assert server.camera.fanout.viewers == 0

    run(test())


def test_a_large_picture_travels_in_chunks_and_waits_for_room(tmp_path):
    async def test():
        jpeg = jpeg_of(1, 640, 480, noise=1)
        assert len(jpeg) > 3 * CHUNK_BYTES_MAX
        async with running(tmp_path, fps=50, jpeg=jpeg) as server:
            taken, refused = [], 0

            def answer(one) -> bool:
                nonlocal refused
                if isinstance(one, Chunk) and refused < 5 and len(taken) == 2:
                    refused += 1
                    return False
                taken.append(one)
                return True

            await send_short_stream(server.context, server.camera.camera, ShortStream(count=1), answer)
            assert refused == 5
            found, _ = pictures_in(b"".join(one.data for one in taken if isinstance(one, Chunk)))
            assert found == [jpeg]

    run(test())


def test_without_a_signal_a_short_stream_ends_at_once_and_says_so(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            answers = []
            asked = send_short_stream(
                server.context, server.camera.camera, ShortStream(count=3), lambda o: answers.append(o) or True
            )
            task = asyncio.create_task(asked)
            await eventually(lambda: server.camera.fanout.variants)
            server.camera.fanout.deliver({v: picture(1, signal=False) for v in server.camera.fanout.variants})
            await soon(task)
            assert answers[0].data == b"\0\0\0\0"
            assert not answers[-1].ok
            assert answers[-1].text == "STREAM_DONE: sent=0, skipped=0, available=0"

    run(test())


def test_a_short_stream_that_nobody_takes_any_more_ends_and_harms_nobody(tmp_path, monkeypatch):
    """The hub is stopped while it runs: pictures go on for everybody else."""
    monkeypatch.setattr(shortstream, "BACKLOG_S", 0.1)

    async def test():
        async with running(tmp_path, fps=50) as server:
            stop = Stop()
            hub_link = HubLink(None, tmp_path, stop)
            hub_link.create_task(
                send_short_stream(server.context, server.camera.camera, ShortStream(count=3), lambda _: False)
            )
            await eventually(lambda: not hub_link._tasks)
            assert not stop.requested, "it would have ended the process"
            assert server.camera.fanout.viewers == 0

    run(test())


def test_no_more_short_streams_at_once_than_promised(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            hub_link, answers = HubLink(None, tmp_path, Stop()), []
            asked = SimpleNamespace(message=ShortStream(count=1), reply=lambda one: answers.append(one) or True)
            for _ in range(SHORT_STREAMS_MAX + 1):
                hub_link._start_short_stream(server.context, asked, asked.message)
            assert [one.status for one in answers] == ["busy"]
            await eventually(lambda: server.camera.fanout.viewers == SHORT_STREAMS_MAX)
            server.camera.publish()
            await eventually(lambda: not hub_link._tasks)

    run(test())


def test_a_short_stream_may_be_of_the_long_exposure_and_says_why_there_is_none(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            answers = []
            command = ShortStream(count=2, exposure="long")
            asked = send_short_stream(
                server.context, server.camera.camera, command, lambda one: answers.append(one) or True
            )
            task = asyncio.create_task(asked)
            await eventually(lambda: server.camera.fanout.variants)
            assert server.camera.fanout.variants[0].long
            server.camera.publish()
            await eventually(lambda: len(answers) == 1)
            server.camera.publish(signal=False, reason="the exporter is away")
            await soon(task)
            assert answers[-1].text == "STREAM_DONE: sent=1, skipped=0, available=1"
            assert answers[-1].data["problem"] == "no signal: the exporter is away"

    run(test())


def test_previews_are_made_while_wanted_and_fit_into_a_message(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            told: list[PreviewFrame] = []
            previews = Previews(server.context, told.append)
            server.camera.publish()
            assert not told
            previews.apply(Preview(camera="cam0", enabled=True, fps=5, width=321))
            assert [(v.width, v.fps) for v in server.camera.fanout.variants] == [(320, 5)]
            server.camera.publish()
            assert number_in(told[0].jpeg) == told[0].frame_id == 2
            previews.apply(Preview(camera="cam0", enabled=True, fps=10, width=640))
            assert [(v.width, v.fps) for v in server.camera.fanout.variants] == [(640, 10)], "one stream, not two"
            previews.apply(Preview(camera="cam0", enabled=False))
            assert server.camera.fanout.variants == ()
            previews.apply(Preview(camera="cam9", enabled=True))

    run(test())


def test_a_preview_that_is_too_large_is_made_worse_rather_than_lost(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            told: list[PreviewFrame] = []
            Previews(server.context, told.append).apply(Preview(camera="cam0", enabled=True, fps=10, width=1280))
            large = jpeg_of(1, 640, 480, noise=1)
            before = server.camera.fanout.variants[0].quality
            server.camera.publish(jpeg=large)
            assert server.camera.fanout.variants[0].quality < before
            for _ in range(20):
                server.camera.publish(jpeg=large)
            assert server.camera.fanout.variants[0].quality == 20
            assert not told
            server.camera.publish(jpeg=jpeg_of(3))
            assert len(told) == 1

    run(test())


def test_viewers_are_listed_for_people_and_programs(tmp_path):
    async def test():
        async with running(tmp_path, fps=30) as server:
            assert list_viewers(server.context).text == "nobody is watching"
            await opened(server, "/stream?width=64")
            await eventually(lambda: server.context.viewers.entries)
            reply = list_viewers(server.context)
            assert "mjpeg cam0 127.0.0.1 64px q80 30fps" in reply.text
            assert reply.data["viewers"][0]["camera"] == "cam0"

    run(test())


def test_a_preview_that_lost_its_place_while_it_changed_is_not_closed_twice(tmp_path):
    """Between leaving and joining again others may take all places."""

    async def test():
        async with running(tmp_path, "[mjpeg_server]\nmax_streams = 1\n") as server:
            previews = Previews(server.context, lambda _: None)
            previews.apply(Preview(camera="cam0", enabled=True, fps=10, width=1280))
            slots, leave = server.context.viewer_slots, server.camera.fanout.leave

            def left_and_taken(wanted, viewer) -> None:
                leave(wanted, viewer)
                slots.acquire(new_variant=False)

            server.camera.fanout.leave = left_and_taken
            server.camera.publish(jpeg=jpeg_of(1, 640, 480, noise=1))
            assert server.camera.fanout.variants == ()
            server.camera.fanout.leave = leave
            previews.apply(Preview(camera="cam0", enabled=False))
            slots.release(last_of_variant=False)
            previews.apply(Preview(camera="cam0", enabled=True, fps=10, width=640))
            assert len(server.camera.fanout.variants) == 1
            assert slots.streams == 1

    run(test())


def test_work_that_fails_is_told_with_its_traceback_and_ends_the_process(tmp_path, caplog):
    async def breaks() -> None:
        raise ZeroDivisionError("of a figure")

    async def ends() -> None:
        await asyncio.sleep(0)

    async def test():
        stop = Stop()
        hub_link = HubLink(None, tmp_path, stop)
        hub_link.create_task(ends())
        hub_link.create_task(asyncio.sleep(60))  # the work that is cancelled
        await eventually(lambda: len(hub_link._tasks) == 1)
        next(iter(hub_link._tasks)).cancel()
        await eventually(lambda: not hub_link._tasks)
        assert not stop.requested, "an end and a cancellation are no failures"
        hub_link.create_task(breaks())
        await eventually(lambda: stop.requested)
        assert stop.failed
        (record,) = caplog.records
        assert "breaks failed" in record.getMessage()
        assert "ZeroDivisionError: of a figure" in caplog.text

    run(test())


def test_a_figure_that_is_no_number_is_passed_over(tmp_path):
    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            rows = [{"program": "recorder", "pid": 1, "figures": {"behind_s": bad}} for bad in ("?", None, [], "nan")]
            rows.append({"program": "recorder-cam1", "pid": 2, "figures": {"behind_s": 1.5}})
            server.hub.replies[Status] = Reply(status="status", text="", data={"processes": rows})
            await measure_load(server.context)
            assert server.context.system_load.recorder_lag_s == 1.5
            for path in ("/metrics", "/api/v1/overview", "/api/v1/cameras/cam0"):
                assert (await browser.get(path)).status == 200, path

    run(test())
