"""Streams and snapshots through real sockets: what viewers get, and that a slow one disturbs nobody."""

import asyncio
import json
import re
import time

import pytest

from tests.machine import PATIENCE, Deadline
from tests.streamer.harness import (
    browsing,
    eventually,
    jpeg_of,
    number_in,
    opened,
    parts,
    picture,
    running,
    soon,
    variant,
)


def run(test) -> None:
    asyncio.run(asyncio.wait_for(test, PATIENCE * 60))


def test_a_stream_carries_every_frame_with_its_headers(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            status, headers, reader, _ = await opened(server, "/stream")
            assert status.startswith("HTTP/1.1 200")
            assert headers["content-type"] == "multipart/x-mixed-replace;boundary=frame"
            assert "transfer-encoding" not in headers, "simple players do not know chunks"
            seen = []
            incoming = parts(reader)
            for _ in range(20):
                began = time.time()
                number = server.camera.publish(dark_score=93.25, night=True)
                part, body = await anext(incoming)
                assert int(part["x-frame-id"]) == number == number_in(body)
                assert (part["x-dark-score"], part["x-night"], part["content-type"]) == ("93.25", "1", "image/jpeg")
                assert began - 0.001 <= float(part["x-timestamp"]) <= time.time()
                assert int(part["content-length"]) == len(body)
                seen.append(number)
            assert seen == list(range(1, 21))

    run(test())


@pytest.mark.parametrize("path", ["/stream", "/cam/cam0/stream", "/?action=stream", "/stream?cam=cam0"])
def test_all_paths_of_a_stream_lead_to_it(tmp_path, path):
    async def test():
        async with running(tmp_path, fps=50) as server:
            _, _, reader, _ = await opened(server, path)
            part, body = await anext(parts(reader))
            assert int(part["x-frame-id"]) == number_in(body)

    run(test())


def test_each_camera_has_its_own_stream(tmp_path):
    async def test():
        async with running(tmp_path, "[cameras.cam0]\n[cameras.cam1]\n", cameras=("cam0", "cam1")) as server:
            streams = [parts((await opened(server, f"/cam/{name}/stream"))[2]) for name in server.cameras]
            for number, camera in zip((7, 8), server.cameras.values(), strict=True):
                camera.number = number - 1
                camera.publish()
            assert [int((await anext(stream))[0]["x-frame-id"]) for stream in streams] == [7, 8]

    run(test())


def test_one_encode_serves_all_viewers_of_a_variant_and_none_without_viewers(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            camera = server.camera
            camera.publish()
            assert camera.fanout.counts.encodes == 0, "no viewer, no encode"
            viewers = [await opened(server, "/stream") for _ in range(5)]
            viewers += [await opened(server, "/stream?width=320")]
            await eventually(lambda: camera.fanout.viewers == 6)
            camera.publish()
            assert camera.fanout.counts.encodes == 2, "two variants"
            for *_, reader, _ in viewers:
                assert int((await anext(parts(reader)))[0]["x-frame-id"]) == 2
            for *_, writer in viewers:
                writer.close()
            await eventually(lambda: camera.fanout.variants == ())
            camera.publish()
            assert camera.fanout.counts.encodes == 2

    run(test())


def test_a_viewer_who_never_reads_is_reset_and_disturbs_nobody(tmp_path):
    async def test():
        jpeg = jpeg_of(1, 640, 480, noise=1)
        async with running(tmp_path, "[http]\nwrite_s = 1.0\nsend_buffer_kib = 64\n") as server:
            stalled = [await opened(server, "/stream", receive_buffer=4096) for _ in range(3)]
            _, _, reader, _ = await opened(server, "/stream")
            healthy = parts(reader)
            await eventually(lambda: server.camera.fanout.viewers == 4)
            deadline = Deadline(20)
            got = 0
            while server.context.connections.counts.reset < 3:
                assert not deadline.has_passed(), f"stalled viewers are still there: {deadline}"
                server.camera.publish(jpeg=jpeg)
                part, _ = await anext(healthy)
                got += 1
                assert int(part["x-frame-id"]) == got, "the healthy one gets every frame meanwhile"
                await asyncio.sleep(0.02)
            await eventually(lambda: server.camera.fanout.viewers == 1)
            assert server.context.viewers.sum_up().skipped["mjpeg"] > 0
            assert len(stalled) == 3

    run(test())


def test_viewers_cost_no_task_and_leave_their_places(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            before = len(asyncio.all_tasks())
            viewers = [await opened(server, "/stream") for _ in range(10)]
            connections = server.context.connections
            await eventually(lambda: len(asyncio.all_tasks()) <= before)
            assert (server.camera.fanout.viewers, len(connections.open), len(server.context.viewers.entries)) == (
                10,
                10,
                10,
            )
            for _, _, reader, _ in viewers:
                server.camera.publish()
                assert number_in((await anext(parts(reader)))[1])
            for *_, writer in viewers:
                writer.close()
            await eventually(lambda: not connections.open)
            assert (server.camera.fanout.viewers, len(server.context.viewers.entries)) == (0, 0)
            assert server.context.viewers.sum_up().viewers["mjpeg"] == 10

    run(test())


def test_a_slow_viewer_gets_the_newest_picture_when_there_is_room_again(tmp_path):
    async def test():
        jpeg = jpeg_of(1, 640, 480, noise=1)
        async with running(tmp_path, "[http]\nsend_buffer_kib = 64\n") as server:
            _, _, reader, _ = await opened(server, "/stream", receive_buffer=4096)
            await eventually(lambda: server.camera.fanout.viewers == 1)
            for _ in range(50):
                server.camera.publish(jpeg=jpeg)
                await asyncio.sleep(0)
            numbers = []
            async for part, _ in parts(reader):
                numbers.append(int(part["x-frame-id"]))
                if numbers[-1] == 50:
                    break
            assert len(numbers) < 10, f"old pictures were queued: {numbers}"

    run(test())


def test_a_newcomer_sees_the_latest_picture_at_once(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            first = await opened(server, "/stream")
            await eventually(lambda: server.camera.fanout.viewers == 1)
            server.camera.publish()
            _, _, reader, _ = await opened(server, "/stream")
            part, _ = await soon(anext(parts(reader)))
            assert part["x-frame-id"] == "1", "without waiting for the next frame, which at night takes seconds"
            first[3].close()

    run(test())


def test_in_advance_mode_the_next_header_follows_each_picture_at_once(tmp_path):
    """Chromium shows a part when the next one's header has come; ustreamer's name for the way out."""

    async def test():
        async with running(tmp_path) as server:
            _, _, reader, _ = await opened(server, "/stream?advance_headers=1")
            header = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"
            assert await reader.readexactly(len(header)) == header
            jpeg = jpeg_of(1)
            server.camera.publish(jpeg=jpeg)
            assert await reader.readexactly(len(jpeg)) == jpeg
            assert await reader.readexactly(2 + len(header)) == b"\r\n" + header

    run(test())


def test_a_frame_that_stays_the_newest_is_repeated(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            _, _, reader, _ = await opened(server, "/stream")
            await eventually(lambda: server.camera.fanout.viewers == 1)
            server.camera.publish()
            incoming = parts(reader)
            assert (await anext(incoming))[0]["x-frame-id"] == "1"
            server.camera.fanout.repeat()
            assert server.camera.fanout.counts.repeats == 0, "not before a second has passed"
            for entry in server.camera.fanout._by_variant.values():
                entry.offered_ns -= 1_100_000_000
            server.camera.fanout.repeat()
            assert (await anext(incoming))[0]["x-frame-id"] == "1"

    run(test())


# ---- snapshots


@pytest.mark.parametrize("path", ["/snapshot.jpg", "/snapshot", "/?action=snapshot", "/cam/cam0/snapshot.jpg"])
def test_a_snapshot_is_the_newest_frame(tmp_path, path):
    async def test():
        async with running(tmp_path, fps=50) as server, browsing(server) as browser:
            answer = await browser.get(path)
            body = await answer.read()
            assert (answer.status, answer.content_type) == (200, "image/jpeg")
            assert int(answer.headers["X-Frame-Id"]) == number_in(body)
            assert answer.headers["ETag"] == f'"cam0-{number_in(body)}"'
            assert "no-store" in answer.headers["Cache-Control"]

    run(test())


def test_many_snapshots_at_once_are_one_encode(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            asked = [asyncio.create_task(browser.get("/snapshot.jpg")) for _ in range(10)]
            await eventually(lambda: server.camera.fanout.viewers == 10)
            server.camera.publish()
            answers = await asyncio.gather(*asked)
            assert {answer.headers["X-Frame-Id"] for answer in answers} == {"1"}
            assert server.camera.fanout.counts.encodes == 1

    run(test())


def test_without_a_signal_a_snapshot_is_refused_and_says_so(tmp_path):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            asked = asyncio.create_task(browser.get("/snapshot.jpg"))
            await eventually(lambda: server.camera.fanout.variants)
            server.camera.fanout.deliver({v: picture(3, signal=False) for v in server.camera.fanout.variants})
            answer = await asked
            assert answer.status == 503
            assert (await answer.json())["reason"] == "no signal from cam0"

    run(test())


# ---- refusals


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/stream?fps=0", 400, "fps='0': must be a number"),
        ("/snapshot.jpg?width=banana", 400, "width='banana': must be a number"),
        ("/cam/cam9/stream", 404, "no camera 'cam9'; cameras: cam0"),
        ("/?action=dance", 400, "action='dance': must be stream or snapshot"),
        ("/nowhere", 404, "no such path"),
        ("/static/../settings.py", 404, "no such path"),
        ("/static/%2e%2e%2fsettings.py", 404, "no such part of the page"),
    ],
)
def test_bad_requests_get_a_reason_as_json(tmp_path, path, status, reason):
    async def test():
        async with running(tmp_path) as server:
            line, headers, reader, _ = await opened(server, path)
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            assert (int(line.split()[1]), body["status"]) == (status, status)
            assert reason in body["reason"]

    run(test())


def test_places_are_limited_and_the_refusal_names_the_setting(tmp_path):
    async def test():
        async with running(tmp_path, "[mjpeg_server]\nmax_streams = 2\nmax_variants = 1\n") as server:
            held = [await opened(server, "/stream") for _ in range(1)]
            await eventually(lambda: server.camera.fanout.viewers == 1)
            status, headers, reader, _ = await opened(server, "/stream?width=64")
            assert "503" in status
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            assert "max_variants" in body["reason"]
            held.append(await opened(server, "/stream"))
            await eventually(lambda: server.camera.fanout.viewers == 2)
            status, headers, reader, _ = await opened(server, "/stream")
            assert "503" in status
            assert "max_streams" in json.loads(await reader.readexactly(int(headers["content-length"])))["reason"]
            held[0][3].close()
            await eventually(lambda: server.camera.fanout.viewers == 1)
            assert "200" in (await opened(server, "/stream"))[0], "a place that is given back is free"

    run(test())


def test_ustreamer_clients_find_their_state(tmp_path):
    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            await opened(server, "/stream")
            await eventually(lambda: server.context.viewers.entries)
            state = await (await browser.get("/state")).json()
            assert state["ok"] is True
            result = state["result"]
            assert result["source"]["online"] is True
            assert result["stream"]["clients"] == 1
            assert set(next(iter(result["stream"]["clients_stat"].values()))) >= {"fps", "key"}

    run(test())


def test_no_answer_tells_more_than_it_must(tmp_path):
    async def test():
        async with running(tmp_path, fps=30) as server:
            for path in ("/", "/stream", "/snapshot.jpg", "/nowhere", "/api/v1/cameras"):
                _, headers, _, writer = await opened(server, path)
                assert headers["server"] == "shmcam"
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["cross-origin-resource-policy"] == "same-site"
                assert "access-control-allow-origin" not in headers
                writer.close()
            _, headers, _, _ = await opened(server, "/")
            assert re.search(r"default-src 'self'", headers["content-security-policy"])

    run(test())


def test_variant_names_are_readable():
    assert str(variant(width=320, gray=True, stack=8)) == "320px q80 30fps gray stack8"
